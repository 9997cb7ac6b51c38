"""What all quantizers share: range, calibration state, slots.

A weight quantizer has one scale an output channel or one in all; an input
quantizer has one scale a slot, where slot n serves the n-th call of a pass (a
head shared across pyramid levels), or one a slot and channel (depthwise
convolutions). The integer range travels in the state dict as ``qmin`` and
``qmax``, both 0 until calibration: integers, so that an averaging hook copies
and never averages them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.io.config_values import boolean, integer

from . import functional
from .grid import Grid
from .observer import RangeObserver, check_finite
from .recomputation import OncePerCall

MIN_BITS, MAX_BITS = 2, 8
FLOAT_HINT = (
    'to keep a layer in float, write quant=dict(overrides={"<layer>": None})'
)


class BaseQuantizer(nn.Module):
    """What all quantizers share: range, calibration state, slots.

    Args:
        bits (int): 2 to 8.
        num_scales (int): Channels of a weight, or slots of an input (times
            ``channels``).
        per_channel (bool): Weights: one scale an entry of the first axis.
        channels (int): Inputs: scales a slot, one an entry of the second
            axis.
        for_weight (bool): Weights are signed with a symmetric range; inputs
            are unsigned where calibration saw nothing below zero.

    Raises:
        ValueError: If an argument is out of range.
    """

    #: Whether calibration should also search an offset.
    asymmetric = False
    #: Whether inputs are clipped to [-alpha, alpha], which leaves the most
    #: negative integer unused.
    clips_symmetrically = False
    #: Whether weights are refused.
    inputs_only = False
    qmin: Tensor
    qmax: Tensor

    def __init__(
        self,
        bits: int,
        num_scales: int = 1,
        per_channel: bool = False,
        for_weight: bool = False,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if for_weight and self.inputs_only:
            raise ValueError(
                f'{type(self).__name__} is for inputs only. Expected for '
                "example weight_quantizer=dict(type='LSQQuantizer')."
            )
        self.bits = integer('bits', bits, MIN_BITS, MAX_BITS, FLOAT_HINT)
        self.num_scales = integer('num_scales', num_scales, 1)
        self.per_channel = boolean('per_channel', per_channel)
        self.for_weight = boolean('for_weight', for_weight)
        self.channels = integer('channels', channels, 1)
        self.observer: RangeObserver | None = None
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
        """``qmax`` as the host knows it; 0: never calibrated."""
        # An averaging hook copies a range into its model without a word: look
        # before saying no. A yes is kept, since to look stops an accelerator.
        self._highest = self._highest or int(self.qmax)
        return self._highest

    @property
    def signed(self) -> bool:
        """Whether the integer range reaches below zero."""
        return bool(self.qmin < 0)

    # Its kernels are compiled (see compiled); counts and ranges are Python's.
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize ``x``; in calibration, look at it and pass it on.

        Raises:
            RuntimeError: If the quantizer was never calibrated.
            ValueError: If calibration meets NaN or infinity.
        """
        if self.observer is not None:
            check_finite(x, self.layer_name or 'a layer')
            self.observer.update(x, self._next_slot())
            return x
        self._check_calibrated()
        return self.quantize(x, self._slot_of_call(x))

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
        """Calls of a pass that have a scale of their own."""
        return 1 if self.per_channel else self.num_scales // self.channels

    @torch.no_grad()
    def grid(self, x: Tensor, slot: int = 0) -> Grid:
        """The integers that :meth:`quantize` rounds to.

        Args:
            x (Tensor): The weight with its output channels first. Of an
                input only the number of axes counts.
            slot (int): Which call of a pass.

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
        """Scale and zero point, of shape () or (C, ) each."""
        raise NotImplementedError

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        """Take over what calibration found, each of shape (num_scales, )."""
        raise NotImplementedError

    def choose_range(self, signed: bool) -> None:
        """Fix the integer range; from here on the quantizer is calibrated."""
        qmin, qmax = functional.integer_range(
            self.bits, signed, narrow=self.for_weight
        )
        self.qmin.fill_(qmin)
        self.qmax.fill_(qmax)
        self._highest = qmax

    def forget_range(self) -> None:
        """Count as never calibrated."""
        self.qmin.zero_()
        self.qmax.zero_()
        self._highest = 0

    def reset_slot(self) -> None:
        """The next call is the first of a pass."""
        self._slot = 0

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
        """Refuse another quantizer's ranges: they count as not calibrated.

        A file without any quantizer keys (a float checkpoint) is not
        reported as missing them: ``forward`` and calibration look after it.
        """
        if self.accepts(state_dict, prefix):
            super()._load_from_state_dict(state_dict, prefix, *args)
            self._highest = int(self.qmax)
        else:
            for key in [k for k in state_dict if k.startswith(prefix)]:
                state_dict.pop(key)

    def accepts(self, state_dict: dict, prefix: str) -> bool:
        """Whether the file's quantizer is of this kind, size and bits."""
        own = {prefix + k: v.shape for k, v in self.state_dict().items()}
        stored = {
            k: v.shape for k, v in state_dict.items() if k.startswith(prefix)
        }
        if stored != own:
            return False
        bounds = tuple(int(state_dict[prefix + k]) for k in ('qmin', 'qmax'))
        return bounds in self._valid_ranges()

    def _valid_ranges(self) -> set[tuple[int, int]]:
        """What a checkpoint of the same bits can hold; (0, 0) is 'never'."""
        choices = (True,) if self.for_weight else (True, False)
        return {(0, 0)} | {
            functional.integer_range(self.bits, signed, self.for_weight)
            for signed in choices
        }

    def extra_repr(self) -> str:
        return f'bits={self.bits}, num_scales={self.num_scales}'


def weight_rows(weight: Tensor, per_channel: bool) -> Tensor:
    """What shares one scale in a row each: (C, N) or (1, N).

    Args:
        weight (Tensor): Output channels first.
        per_channel (bool): One row a channel, or one in all.
    """
    return weight.flatten(1) if per_channel else weight.reshape(1, -1)
