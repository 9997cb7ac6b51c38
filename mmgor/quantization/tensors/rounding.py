"""Rounds tensors in the forward pass of a module, as its plan says."""

from collections.abc import Callable
from functools import partial, update_wrapper
from threading import local
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from mmgor.quantization.policy import ONLY_INPUTS
from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.marks import (
    is_marked,
    mark,
    mark_of,
    unmark,
)
from mmgor.quantization.quantizers.recomputation import is_recomputed

from .grids import check_given
from .operations import (
    Kind,
    call,
    changed,
    is_same,
    keeps_values,
    kind_of,
    operands,
)
from .plan import Plan, PlannedStep, Slot

# The passes that are running, the innermost last.
_RUNNING = local()


def attach(
    module: nn.Module, plan: Plan, layers: dict[str, nn.Module]
) -> None:
    """Let every forward pass of a module follow a plan.

    Args:
        module (nn.Module): The module, with all quantizers of the plan.
        plan (Plan): Its plan.
        layers (dict[str, nn.Module]): Path -> layer, for all layers that the
            pass was recorded with.
    """
    owner: Any = module
    owner.rounding_plan = plan
    # Not hooks: mmdet calls ``bbox_head.forward`` directly in one mode. A
    # copy of the module gets a function of its own, also one from pickle.
    stock = MethodType(type(owner).forward, owner)
    owner.forward = update_wrapper(partial(_forward, owner), stock)
    for name, layer in layers.items():
        before, after = partial(_before, name), partial(_after, name)
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after, always_call=True)


def fused_silus(model: nn.Module) -> list[str]:
    """Paths of the modules of a detector whose SiLU reads what no grid rounds,
    since the runtime computes it inside the layer before."""
    return [
        f'{path}.{name}'.strip('.')
        for path, module in model.named_modules()
        if hasattr(module, 'rounding_plan')
        for name in module.rounding_plan.fused
    ]


# What a mode sees of a call, and the marks of tensors, are no part of a graph.
@torch.compiler.disable
def _forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    running = _Pass(module)
    _passes().append(running)
    try:
        with running:
            output = type(module).forward(module, *args, **kwargs)
    finally:
        _passes().pop()
    return running.finish(output)


def _passes() -> list['_Pass']:
    if not hasattr(_RUNNING, 'passes'):
        _RUNNING.passes = []
    return _RUNNING.passes


def _before(name: str, layer: nn.Module, inputs: tuple) -> Any:
    if not _passes():  # the layer alone was called
        _check_first_run(name)
        return None
    return _passes()[-1].before(name, inputs)


def _after(name: str, layer: nn.Module, _: Any, output: Any) -> Any:
    if not _passes():
        return None
    return _passes()[-1].after(name, output)


def _check_first_run(name: str) -> None:
    if is_recomputed():
        raise RuntimeError(
            f'activation checkpointing runs {name} a second time, where '
            "tensors='all' does not see the operations around it. Switch "
            f'checkpointing off, or use {ONLY_INPUTS}.'
        )


class _Pass(TorchFunctionMode):
    """One forward pass of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        plan: Any = module.rounding_plan
        self._plan: Plan = plan
        self._done = 0
        self._calls: dict[str, int] = {}
        self._inside = 0
        # Tensor -> the results of its rounding.
        self._rounded: Any = WeakIdKeyDictionary()

    def __torch_function__(
        self,
        function: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = None if self._inside else kind_of(function, args, kwargs)
        step = None if kind is None else self._next(kind)
        if step is None or not (step.given or step.makes or any(step.reads)):
            result = function(*args, **kwargs)
            if not self._inside:
                self._follow(function, args, result)
            return result
        read = [
            x if slot is None else self._round(x, slot)
            for x, slot in zip(operands(step.kind, args, kwargs), step.reads)
        ]
        if step.kind is Kind.SILU:
            return self._silu(step, read[0])
        result = call(function, step.kind, read, args, kwargs)
        return self._keep(step, read[0], result)

    def _follow(self, function: Callable, args: tuple, result: Any) -> None:
        """Note what a call that rounds nothing does to marks."""
        made = changed(function, args, result)
        if made is not None:
            unmark(made)
            self._rounded.pop(made, None)
        elif args and is_same(function) and isinstance(result, Tensor):
            found = mark_of(args[0])
            if found is not None:
                mark(result, *found)

    def _next(self, kind: Kind) -> PlannedStep:
        steps = self._plan.steps
        planned = steps[self._done] if self._done < len(steps) else None
        if planned is None or planned.kind is not kind:
            raise self._changed(kind.value, planned)
        self._done += 1
        return planned

    def _changed(self, got: str, planned: PlannedStep | None) -> RuntimeError:
        expected = (
            'no more operation'
            if planned is None
            else f'"{planned.kind.value}" in {planned.name or "forward"}'
        )
        return self._differs(
            f'call {expected} as operation {self._done + 1}', got
        )

    def _differs(self, expected: str, got: str) -> RuntimeError:
        return RuntimeError(
            f"tensors='all' expected {type(self._module).__name__} to "
            f'{expected}, as it did when it was built; got {got}. A module '
            f"that differs between calls can't be planned: use {ONLY_INPUTS} "
            'for it.'
        )

    def _silu(self, step: PlannedStep, x: Tensor) -> Tensor:
        assert step.makes is not None
        return x * self._round(torch.sigmoid(x), step.makes)

    def _keep(self, step: PlannedStep, operand: Tensor, result: Any) -> Any:
        """Put the result on the grid of the operand, if it keeps it."""
        if step.given:
            check_given(operand, f'{step.name} ({step.kind.value})')
            found = mark_of(operand)
            assert found is not None
            quantizer, slot = found
        elif step.makes is not None:
            quantizer, slot = self._find(step.makes)
        else:
            return result
        same = keeps_values(step.kind) and isinstance(quantizer, BaseQuantizer)
        apply = mark if same else self._apply
        return tree_map_only(
            Tensor, lambda x: apply(x, quantizer, slot), result
        )

    def _find(self, slot: Slot) -> tuple[nn.Module, int]:
        return self._module.get_submodule(slot.path), slot.slot

    def _round(self, x: Tensor, slot: Slot) -> Tensor:
        """Round a tensor, once per pass."""
        quantizer, index = self._find(slot)
        if is_marked(x, quantizer, index):
            return x
        results = self._rounded.setdefault(x, {})
        # A change in place through a view changes the version.
        key = slot, None if x.is_inference() else x._version
        if key not in results:
            results[key] = self._apply(x, quantizer, index)
        return results[key]

    def _apply(self, x: Tensor, quantizer: nn.Module, slot: int) -> Tensor:
        self._inside += 1
        try:
            result = quantizer(x, slot)
            # In calibration it is the tensor itself, which other readers
            # round to other grids.
            result = result.view_as(x) if result is x else result
        finally:
            self._inside -= 1
        return mark(result, quantizer, slot)

    def before(self, name: str, inputs: tuple) -> tuple | None:
        """Round the input of a layer."""
        self._inside += 1
        reads = self._plan.reads.get(name)
        if self._inside > 1 or not reads:
            return None
        x, *rest = inputs
        for slot in reads[self._count(name) % len(reads)]:
            x = self._round(x, slot)
        return x, *rest

    def _count(self, name: str) -> int:
        count = self._calls.get(name, 0)
        self._calls[name] = count + 1
        return count

    def after(self, name: str, output: Any) -> Any:
        """Round the output of a prediction layer."""
        self._inside -= 1
        slots = self._plan.outputs.get(name)
        if self._inside or not slots or output is None:
            return None
        slot = slots[self._count(f'{name} (output)') % len(slots)]
        return self._round(output, slot)

    def finish(self, output: Any) -> Any:
        """Round what the module returns."""
        if self._done != len(self._plan.steps):
            raise self._changed('its end', self._plan.steps[self._done])
        if not self._plan.returned:  # a head, whose predictions are rounded
            return output
        returned = iter(self._plan.returned)
        count = sum(map(_is_float, tree_leaves(output)))
        if count != len(self._plan.returned):
            raise self._differs(
                f'return {len(self._plan.returned)} tensors', str(count)
            )

        def rounded(x: Any) -> Any:
            for slot in next(returned) if _is_float(x) else ():
                x = self._round(x, slot)
            return x

        return tree_map_only(torch.Tensor, rounded, output)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
