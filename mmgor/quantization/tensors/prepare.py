"""Plans the grids of a wrapped module and builds its new quantizers."""

import logging
from collections.abc import Iterable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from mmgor.listing import listed
from mmgor.quantization.layers.quant_layers import QuantLayerMixin
from mmgor.quantization.layers.weights import weighted_layers
from mmgor.quantization.policy import ONLY_INPUTS, QuantPolicy
from mmgor.quantization.quantizers.base import BaseQuantizer
from mmgor.quantization.quantizers.marks import mark
from mmgor.quantization.quantizers.observer import PassThrough
from mmgor.quantization.roles.probe import copy_to_run, kernel_layers
from mmgor.registry import build_own
from mmgor.trial_run import random_states_kept

from .grids import FixedQuantizer, GivenQuantizer
from .plan import ATTRIBUTE, LayerBits, Plan, make_plan
from .rounding import attach
from .tape import Tape, record

_SHOWN = 8


def round_tensors(
    module: nn.Module,
    policy: QuantPolicy,
    inputs: Iterable[dict[str, Any]],
    predictions: set[str] | None = None,
    given: bool = True,
) -> None:
    """Let a module with quantized layers round every tensor, in place.

    Args:
        module (nn.Module): Its layers are quantized.
        policy (QuantPolicy): Its bit policy.
        inputs (Iterable[dict]): Arguments of its ``forward`` to try; the first
            ones that it takes are recorded.
        predictions (set[str], optional): Paths of a head's prediction layers.
        given (bool): Whether the module before rounds what this one gets.

    Raises:
        ValueError: If the module can't be run, if it uses activation
            checkpointing, or if it computes something else with the plan.
    """
    _check_checkpointing(module)
    tape, arguments, expected = _record(module, inputs, predictions or set())
    layers = {
        name: LayerBits(
            layer.input_quantizer.bits, layer.input_quantizer.num_slots
        )
        for name, layer in module.named_modules()
        if isinstance(layer, QuantLayerMixin)
    }
    bits = dict.fromkeys(predictions or (), policy.first_last_bits)
    plan = make_plan(
        tape,
        layers,
        given,
        bits,
        policy.tensor_bits,
        policy.a_bits,
        policy.fuse_silu,
    )
    _build(module, plan, policy)
    attach(module, plan, _recorded_layers(module))
    _check_same(module, arguments, expected)
    _log(module, plan, policy, predictions or set())


def _recorded_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Layers that multiply by weights, and those that multiply in training
    mode only. What they do inside does not count."""
    kept = kernel_layers(module)
    weighted = {
        name: layer
        for name, layer in weighted_layers(module).items()
        if name in kept or isinstance(layer, QuantLayerMixin)
    }
    drops = {n: m for n, m in module.named_modules() if type(m) is DropPath}
    return weighted | drops


def _check_checkpointing(module: nn.Module) -> None:
    found = [n for n, m in module.named_modules() if getattr(m, 'with_cp', 0)]
    if found:
        raise ValueError(
            f"tensors='all' and activation checkpointing (with_cp=True in "
            f'{type(module).__name__}: {found[0] or "the module itself"}) '
            f"can't be combined; expected with_cp=False or {ONLY_INPUTS}."
        )


def _copy(module: nn.Module) -> nn.Module:
    """A copy that runs in float."""
    copied = copy_to_run(module)
    for child in copied.modules():
        if isinstance(child, BaseQuantizer):
            child.observer = PassThrough()
    return copied


@torch.no_grad()
def _record(
    module: nn.Module, inputs: Iterable[dict[str, Any]], predictions: set[str]
) -> tuple[Tape, dict[str, Any], list[Tensor]]:
    error: Exception | None = None
    for arguments in inputs:
        copied = _copy(module)
        with random_states_kept():
            torch.manual_seed(0)
            filled = tree_map_only(Tensor, _noise, arguments)
            try:
                tape, output = record(
                    copied, _recorded_layers(copied), predictions, filled
                )
            except Exception as caught:  # the module may raise anything
                error = error or caught
                continue
        return tape, filled, _leaves(output)
    raise ValueError(
        f"tensors='all' has to run {type(module).__name__} once to see which "
        f'tensors it reads, but could not ({error!r}). Use {ONLY_INPUTS}.'
    )


def _noise(x: Tensor) -> Tensor:
    return torch.randn_like(x) if x.is_floating_point() else x


def _leaves(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _build(module: nn.Module, plan: Plan, policy: QuantPolicy) -> None:
    """Build the new quantizers, and share those of layers."""
    for name, owner in plan.shared.items():
        layer: Any = module.get_submodule(name)
        shared: Any = module.get_submodule(f'{owner}.input_quantizer')
        del layer.input_quantizer
        # Not registered a second time: one name per parameter.
        layer.__dict__['input_quantizer'] = shared
        if layer.weight.requires_grad:
            shared.requires_grad_()
    for name in plan.given:
        layer = module.get_submodule(name)
        given = GivenQuantizer(layer.input_quantizer.bits)
        given.layer_name = layer.input_quantizer.layer_name
        layer.input_quantizer = given
    new = nn.ModuleDict()
    for name, (bits, slots) in plan.new.items():
        quantizer: BaseQuantizer = build_own(
            'input_quantizer',
            policy.input_config(bits, slots),
            BaseQuantizer,
            'dict(type=...)',
        )
        quantizer.layer_name = name
        new[name] = quantizer
    trained = any(p.requires_grad for p in module.parameters())
    if plan.fixed:
        new['sigmoid'] = FixedQuantizer(policy.symmetric)
    module.add_module(ATTRIBUTE, new.requires_grad_(trained))
    module.register_load_state_dict_pre_hook(_match_ranges)


def _match_ranges(
    module: nn.Module, state_dict: dict, prefix: str, *_: Any
) -> None:
    """Load ranges of tensors only together with all weights of the module.

    Layers do the same with their own ranges and weight. Ranges of tensors do
    not fit a file's weights if they are those of other ones.
    """
    fits = [
        getattr(state_dict.get(f'{prefix}{name}.weight'), 'shape', None)
        == layer.weight.shape
        for name, layer in module.named_modules()
        if isinstance(layer, QuantLayerMixin)
    ]
    if any(fits):
        quantizers: Any = module.get_submodule(ATTRIBUTE).children()
        for quantizer in quantizers:
            quantizer.forget_range()
    if not all(fits):
        start = f'{prefix}{ATTRIBUTE}.'
        for key in [k for k in state_dict if k.startswith(start)]:
            del state_dict[key]


@torch.no_grad()
def _check_same(
    module: nn.Module, arguments: dict[str, Any], expected: list[Tensor]
) -> None:
    """Make sure that a pass without rounding computes what it did before.

    A module that changes a tensor in place and reads it under its old name
    does not: operations make new tensors here.
    """
    copied = _copy(module)
    arguments = tree_map_only(Tensor, _marked, deepcopy(arguments))
    outputs = _leaves(copied(**arguments))
    same = len(outputs) == len(expected) and all(
        a.shape == b.shape and torch.allclose(a, b, 1e-3, 1e-4)
        for a, b in zip(outputs, expected)
    )
    if not same:
        raise ValueError(
            f"tensors='all' would change what {type(module).__name__} "
            'computes: it changes a tensor in place and reads it under '
            f'another name. Use {ONLY_INPUTS} for it.'
        )


def _marked(x: Tensor) -> Tensor:
    quantizer = FixedQuantizer()
    quantizer.observer = PassThrough()
    return mark(x, quantizer, 0)


def _log(
    module: nn.Module, plan: Plan, policy: QuantPolicy, predictions: set[str]
) -> None:
    if policy.first_last_bits > policy.a_bits:
        predictions = predictions & plan.given
        if predictions:
            print_log(
                f'{type(module).__name__}: the module before it rounds the '
                f'input of {listed(sorted(predictions), most=_SHOWN)} to its '
                f'a_bits. first_last_bits={policy.first_last_bits} counts for '
                'weights and outputs.',
                logger='current',
                level=logging.WARNING,
            )
    asked = [n for n in sorted(plan.given) if _asks_for_bits(n, policy)]
    if asked:
        print_log(
            f'{type(module).__name__}: a_bits of overrides has no effect on '
            f'{listed(asked, most=_SHOWN)}. These layers take their input as '
            'the module before has rounded it; set its a_bits.',
            logger='current',
            level=logging.WARNING,
        )
    if plan.uncovered:
        print_log(
            f"{type(module).__name__}: under tensors='all' these operations "
            f'stay in float: {listed(plan.uncovered, most=_SHOWN)}.',
            logger='current',
            level=logging.WARNING,
        )


def _asks_for_bits(name: str, policy: QuantPolicy) -> bool:
    return any(
        bits is not None and 'a_bits' in bits and fnmatchcase(name, pattern)
        for pattern, bits in policy.overrides.items()
    )
