"""The base class of all quantizers: integer range, calibration and slots.

A weight quantizer has one scale per output channel, or a single one. An input
quantizer has one scale per slot. Slot n serves the n-th call of its layer in a
forward pass: a head that is shared across pyramid levels has one slot per
level, all other layers have one slot. Input quantizers of depthwise
convolutions may have one scale per slot and channel.

The integer range is in the state dict, as ``qmin`` and ``qmax``. Both are 0
before calibration. They have an integer dtype, so that a hook which averages
models (EMA) copies them and does not average them.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmgor.io.config_values import boolean, integer

from . import functional
from .grid import Grid
from .marks import is_marked
from .observer import PassThrough, RangeObserver, check_finite
from .recomputation import OncePerCall

MIN_BITS, MAX_BITS = 2, 8
FLOAT_HINT = (
    'to keep a layer in float, write quant=dict(overrides={"<layer>": None})'
)

_TRACED_IN_FLOAT = (
    'quantizers that were never calibrated are traced as if they were not '
    'there: the trace is that of the float network.'
)


class BaseQuantizer(nn.Module):
    """Base class of all quantizers.

    A subclass implements :meth:`quantize`, :meth:`step` and
    :meth:`set_ranges`.

    Args:
        bits (int): Number of bits, 2 to 8.
        num_scales (int): Number of scales: output channels of a weight, or
            slots of an input times ``channels``.
        per_channel (bool): For weights: one scale per entry of the first
            axis.
        for_weight (bool): Weights are signed and have a symmetric range.
            Inputs are unsigned if calibration saw no value below zero.
        channels (int): For inputs: scales per slot, one per entry of the
            second axis, or 1.
        symmetric (bool): For inputs: the range has to fit -127 to 127 with
            zero point 0, so that unsigned inputs have 7 bits at most.

    Raises:
        ValueError: If an argument is out of range.
    """

    #: Whether calibration also searches for an offset.
    asymmetric = False
    #: Whether signed inputs are clipped to [-alpha, alpha], so that the most
    #: negative integer is unused.
    clips_symmetrically = False
    #: Whether the quantizer refuses weights.
    inputs_only = False
    #: Whether calibration chooses the range.
    has_range = True
    qmin: Tensor
    qmax: Tensor

    def __init__(
        self,
        bits: int,
        num_scales: int = 1,
        per_channel: bool = False,
        for_weight: bool = False,
        channels: int = 1,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.bits = integer('bits', bits, MIN_BITS, MAX_BITS, FLOAT_HINT)
        self.num_scales = integer('num_scales', num_scales, 1)
        self.per_channel = boolean('per_channel', per_channel)
        self.for_weight = boolean('for_weight', for_weight)
        if self.for_weight and self.inputs_only:
            raise ValueError(
                f'{type(self).__name__} is for inputs only. Expected for '
                "example weight_quantizer=dict(type='LSQQuantizer')."
            )
        self.channels = integer('channels', channels, 1)
        self.symmetric = boolean('symmetric', symmetric)
        self.observer: RangeObserver | PassThrough | None = None
        self.layer_name = ''
        self._slot = 0
        self._slots = OncePerCall()
        self._highest = 0
        self.register_buffer('qmin', torch.zeros((), dtype=torch.int32))
        self.register_buffer('qmax', torch.zeros((), dtype=torch.int32))

    @property
    def calibrated(self) -> bool:
        """Whether ranges were set, by calibration or from a checkpoint."""
        return self.highest > 0

    @property
    def highest(self) -> int:
        """``qmax`` as a Python number; 0 if never calibrated."""
        # An averaging hook may have copied a range into the buffer, so 0 is
        # not trusted. A value is kept, because to read the buffer makes the
        # host wait for an accelerator.
        if not self._highest:
            self._highest = int(self.qmax)
        return self._highest

    @property
    def signed(self) -> bool:
        """Whether the integer range reaches below zero."""
        return bool(self.qmin < 0)

    def forward(self, x: Tensor, slot: int | None = None) -> Tensor:
        """Fake-quantize ``x``. During calibration, observe it and pass it on.

        A tensor that this quantizer has rounded already is returned as it is.

        Args:
            x (Tensor): Any shape.
            slot (int, optional): Index of the call in a forward pass. By
                default the calls are counted.

        Returns:
            Tensor: Shape and dtype of ``x``.

        Raises:
            RuntimeError: If the quantizer was never calibrated. Only the
                tracer of ``torch.jit`` gets the float network then, with a
                warning: tools that count operations trace an untrained model.
            ValueError: If calibration meets NaN or infinity.
        """
        if not torch.compiler.is_dynamo_compiling():
            return self._forward(x, slot)
        if self._is_constant():
            return self.quantize(
                x, self._slot_of_call(x) if slot is None else slot
            )
        return self._outside_of_graphs(x, slot)

    def _is_constant(self) -> bool:
        """Whether a compiled graph may hold what a call does: there are only
        tensors to compute, with a range that was set before.

        Under activation checkpointing, only the second run is traced. It has
        to find the slot of the first one.
        """
        fixed = self.num_slots == 1 or not self._slots.used
        return self.observer is None and self._highest > 0 and fixed

    @torch.compiler.disable
    def _outside_of_graphs(self, x: Tensor, slot: int | None) -> Tensor:
        return self._forward(x, slot)

    def _forward(self, x: Tensor, slot: int | None) -> Tensor:
        if is_marked(x, self, slot):
            return x
        if self.observer is not None:
            check_finite(x, self.layer_name or 'a layer')
            return self.observer.update(
                x, self._next_slot() if slot is None else slot
            )
        if torch.jit.is_tracing() and not self.calibrated:
            warnings.warn(_TRACED_IN_FLOAT, stacklevel=2)
            return x
        self._check_calibrated()
        return self.quantize(
            x, self._slot_of_call(x) if slot is None else slot
        )

    def _check_calibrated(self) -> None:
        if not self.calibrated:
            raise RuntimeError(
                f'the quantizer of {self.layer_name or "a layer"} was never '
                'calibrated: expected scales from a quantized checkpoint or '
                'from calibration. To train, add custom_hooks=[dict('
                "type='QuantCalibrationHook')] to the config; to test, load "
                'a checkpoint of the quantized model.'
            )

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        """Fake-quantize ``x`` with the scale of ``slot``."""
        raise NotImplementedError

    @property
    def num_slots(self) -> int:
        """Calls per forward pass that have scales of their own."""
        return 1 if self.per_channel else self.num_scales // self.channels

    @torch.no_grad()
    def grid(self, x: Tensor, slot: int = 0) -> Grid:
        """The integer grid that :meth:`quantize` rounds to.

        Args:
            x (Tensor): The weight, with its output channels first, or an
                input.
            slot (int): Index of the call in a forward pass.

        Raises:
            RuntimeError: If the quantizer was never calibrated.
        """
        self._check_calibrated()
        scale, zero_point = self.step(x, slot)
        qmin, qmax = int(self.qmin), int(self.qmax)
        return Grid(
            scale.detach().float().clone(),
            zero_point.to(torch.int32),
            max(qmin, -qmax) if self.clips_symmetrically else qmin,
            qmax,
            axis=0 if self.for_weight else 1,
        )

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        """Step size in units of ``x`` and zero point, of shape () or (C, )."""
        raise NotImplementedError

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        """Take over the ranges that calibration found.

        Args:
            scale (Tensor): Step sizes, shape (num_scales, ).
            offset (Tensor): Values of the integer 0, shape of ``scale``.
            low (Tensor): Smallest values, shape of ``scale``.
            high (Tensor): Largest values, shape of ``scale``.
        """
        raise NotImplementedError

    def choose_range(self, signed: bool) -> None:
        """Set the integer range, which makes the quantizer calibrated."""
        qmin, qmax = self.integers(self.bits, signed)
        self.qmin.fill_(qmin)
        self.qmax.fill_(qmax)
        self._highest = qmax

    def integers(self, bits: int, signed: bool) -> tuple[int, int]:
        """The smallest and the largest integer that it would have.

        Args:
            bits (int): 2 to 8.
            signed (bool): Whether values are below zero.
        """
        narrow = self.for_weight
        if self.symmetric and not signed:
            bits = min(bits, MAX_BITS - 1)
        elif self.symmetric:  # ncnn has no -128
            narrow = narrow or bits == MAX_BITS
        return functional.integer_range(bits, signed, narrow)

    def forget_range(self) -> None:
        """Return to the state before calibration."""
        self.qmin.zero_()
        self.qmax.zero_()
        self._highest = 0

    def fix_range(self) -> None:
        """Let no optimizer train the range: parameters become buffers."""
        for name, parameter in [*self.named_parameters()]:
            delattr(self, name)
            self.register_buffer(name, parameter.detach())

    def reset_slot(self) -> None:
        """Start a forward pass: the next call gets the first slot."""
        self._slot = 0

    def forget_calls(self) -> None:
        """What was kept of calls, for activation checkpointing, is of no use
        any more."""
        self._slots.forget()

    def _slot_of_call(self, x: Tensor) -> int:
        if self.num_slots == 1:
            return 0
        return self._slots(x, self._next_slot, self.training)

    def _next_slot(self) -> int:
        slot = self._slot
        self._slot = (slot + 1) % self.num_slots
        return slot

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Ignore the ranges of another kind of quantizer.

        The quantizer then counts as not calibrated. Keys that the file lacks
        are not reported as missing, since a float checkpoint has none of
        them: ``forward`` raises if calibration does not set the ranges.
        """
        if self.accepts(state_dict, prefix):
            super()._load_from_state_dict(state_dict, prefix, *args)
            self._highest = int(self.qmax)
        else:
            for key in [k for k in state_dict if k.startswith(prefix)]:
                state_dict.pop(key)

    def accepts(self, state_dict: dict, prefix: str) -> bool:
        """Whether the quantizer in a file has this class, size and bits."""
        own = {prefix + k: v.shape for k, v in self.state_dict().items()}
        stored = {
            k: v.shape for k, v in state_dict.items() if k.startswith(prefix)
        }
        if stored != own:
            return False
        bounds = tuple(int(state_dict[prefix + k]) for k in ('qmin', 'qmax'))
        return bounds in self._valid_ranges()

    def _valid_ranges(self) -> set[tuple[int, int]]:
        """Integer ranges that a file of the same bits may have; (0, 0) stands
        for a quantizer that was never calibrated."""
        choices = (True,) if self.for_weight else (True, False)
        return {(0, 0)} | {
            self.integers(self.bits, signed) for signed in choices
        }

    def extra_repr(self) -> str:
        return f'bits={self.bits}, num_scales={self.num_scales}'


def weight_rows(weight: Tensor, per_channel: bool) -> Tensor:
    """A weight as a matrix with one row per scale.

    Args:
        weight (Tensor): Weight with its C output channels first.
        per_channel (bool): One row per channel, or a single row.

    Returns:
        Tensor: Shape (C, N) or (1, N).
    """
    return weight.flatten(1) if per_channel else weight.reshape(1, -1)


def quantizers_of(model: nn.Module) -> list[BaseQuantizer]:
    """All quantizers in a model."""
    return [m for m in model.modules() if isinstance(m, BaseQuantizer)]


@contextmanager
def without_rounding(model: nn.Module) -> Iterator[None]:
    """In the block, quantizers leave their tensors in float, also before
    calibration. Afterwards they have the observers that they had.

    Args:
        model (nn.Module): With quantizers.
    """
    before = {q: q.observer for q in quantizers_of(model)}
    for quantizer in before:
        quantizer.observer = PassThrough()
        quantizer.reset_slot()
    try:
        yield
    finally:
        for quantizer, observer in before.items():
            quantizer.observer = observer
            quantizer.reset_slot()
