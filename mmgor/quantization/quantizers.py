"""Quantizers: modules that hold what one tensor's quantization learns.

A weight quantizer has one scale a channel (``channel_axis=0``) or one in all;
an input quantizer has one scale a slot, where slot n serves the n-th call of
a pass (a head shared across pyramid levels). The integer range travels in the
state dict as ``qmin`` and ``qmax``, both 0 until calibration: integers, so
that an averaging hook copies and never averages them.
"""

from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .compiled import fake_quantize
from .observer import RangeObserver

MIN_BITS, MAX_BITS = 2, 8


class BaseQuantizer(nn.Module):
    """What all quantizers share: range, calibration state, slots.

    Args:
        bits (int): 2 to 8.
        num_scales (int): Channels of a weight, or slots of an input.
        channel_axis (int, optional): Weights: the axis with one scale an
            entry. None: one scale for the whole tensor.
        for_weight (bool): Weights are signed with a symmetric range; inputs
            are unsigned where calibration saw nothing below zero.

    Raises:
        ValueError: If ``bits`` is outside 2..8.
    """

    #: Whether calibration should also search an offset.
    asymmetric = False
    qmin: Tensor
    qmax: Tensor

    def __init__(
        self,
        bits: int,
        num_scales: int = 1,
        channel_axis: int | None = None,
        for_weight: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
            raise ValueError(
                f'bits must be an integer from {MIN_BITS} to {MAX_BITS}, got '
                f'{bits!r}. To keep a layer in float, write '
                'overrides={"<layer>": None} in the quant config.'
            )
        self.bits = bits
        self.num_scales = num_scales
        self.channel_axis = channel_axis
        self.for_weight = for_weight
        self.observer: RangeObserver | None = None
        self.layer_name = ''
        self._slot = 0
        self._calibrated = False
        self.register_buffer('qmin', torch.zeros((), dtype=torch.int32))
        self.register_buffer('qmax', torch.zeros((), dtype=torch.int32))

    @property
    def calibrated(self) -> bool:
        """Whether ranges were set, by calibration or from a checkpoint."""
        return self._calibrated

    @property
    def signed(self) -> bool:
        """Whether the integer range reaches below zero."""
        return bool(self.qmin < 0)

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize ``x``; in calibration, look at it and pass it on.

        Raises:
            RuntimeError: If the quantizer was never calibrated.
        """
        slot = self._next_slot()
        if self.observer is not None:
            self.observer.update(x, slot)
            return x
        if not self._calibrated:
            raise RuntimeError(
                f'the quantizer of {self.layer_name or "a layer"} was never '
                'calibrated: expected scales from a quantized checkpoint or '
                'from calibration. To train, add custom_hooks=[dict('
                "type='QuantCalibrationHook')] to the config; to test, load "
                'a checkpoint of the quantized model.'
            )
        return self.quantize(x, slot)

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        """Fake-quantize ``x`` with the scale of ``slot``."""
        raise NotImplementedError

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        """Take over what calibration found, each of shape (num_scales, )."""
        raise NotImplementedError

    def current_scale(self) -> Tensor:
        """The step sizes in use, shape (num_scales, )."""
        raise NotImplementedError

    def choose_range(self, signed: bool) -> None:
        """Fix the integer range; from here on the quantizer is calibrated."""
        qmin, qmax = functional.integer_range(
            self.bits, signed, narrow=self.for_weight
        )
        self.qmin.fill_(qmin)
        self.qmax.fill_(qmax)
        self._calibrated = True

    def reset_slot(self) -> None:
        """The next call is the first of a pass."""
        self._slot = 0

    def _next_slot(self) -> int:
        slot = self._slot
        if self.channel_axis is None:
            self._slot = (slot + 1) % self.num_scales
        return slot

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        """Refuse ranges of other bits: they count as not calibrated.

        A file without any quantizer keys (a float checkpoint) is not
        reported as missing them: ``forward`` and calibration look after it.
        """
        bounds = [state_dict.get(prefix + name) for name in ('qmin', 'qmax')]
        stored = tuple(-1 if b is None else int(b) for b in bounds)
        if stored not in self._valid_ranges():
            for key in [k for k in state_dict if k.startswith(prefix)]:
                state_dict.pop(key)
        if any(key.startswith(prefix) for key in state_dict):
            super()._load_from_state_dict(state_dict, prefix, *args)
            self._calibrated = stored not in ((0, 0), (-1, -1))

    def _valid_ranges(self) -> set[tuple[int, int]]:
        """What a checkpoint of the same bits can hold; (0, 0) is 'never'."""
        choices = (True,) if self.for_weight else (True, False)
        return {(0, 0)} | {
            functional.integer_range(self.bits, signed, self.for_weight)
            for signed in choices
        }

    def extra_repr(self) -> str:
        return f'bits={self.bits}, num_scales={self.num_scales}'


@MODELS.register_module()
class LSQQuantizer(BaseQuantizer):
    """Learned step size (Esser et al., "Learned Step Size Quantization",
    ICLR 2020), learned in the log domain (see :func:`functional.exp_scale`):
    ``log_scale`` is a parameter of shape (num_scales, )."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        scale = self._scale(x, slot)
        return fake_quantize(
            x,
            scale,
            torch.zeros_like(scale),
            self.qmin,
            self.qmax,
            self.channel_axis,
        )

    def _scale(self, x: Tensor, slot: int) -> Tensor:
        log_scale = self.log_scale
        if self.channel_axis is None:
            log_scale = log_scale[slot]
        count = x.numel() // log_scale.numel()
        factor = functional.lsq_gradient_factor(count, self.qmax)
        return functional.exp_scale(log_scale, factor)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.log_scale.data.copy_(scale.log())

    def current_scale(self) -> Tensor:
        return self.log_scale.detach().exp()


@MODELS.register_module()
class LSQPlusQuantizer(LSQQuantizer):
    """LSQ with a learned offset (Bhalgat et al., "LSQ+", CVPRW 2020), for
    inputs with a short negative tail (SiLU, Swish, Hardswish).

    ``offset`` has shape (num_scales, ) and the unit of the input.
    """

    asymmetric = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.for_weight:
            raise ValueError(
                'LSQPlusQuantizer is for inputs: weights stay symmetric, so '
                'that batch norm folds exactly. Expected weight_quantizer='
                "dict(type='LSQQuantizer')."
            )
        self.offset = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        factor = functional.lsq_gradient_factor(x.numel(), self.qmax)
        offset = functional.scale_gradient(self.offset[slot], factor)
        return fake_quantize(
            x, self._scale(x, slot), offset, self.qmin, self.qmax
        )

    def choose_range(self, signed: bool) -> None:
        super().choose_range(signed=False)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        super().set_ranges(scale, offset, low, high)
        self.offset.data.copy_(offset)


@MODELS.register_module()
class PACTQuantizer(BaseQuantizer):
    """Learned clipping of inputs (Choi et al., "PACT", 2018): ``alpha`` is a
    parameter of shape (num_scales, )."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.for_weight:
            raise ValueError(
                'PACTQuantizer is for inputs. Expected weight_quantizer='
                "dict(type='DoReFaQuantizer') (as in the paper) or "
                "dict(type='LSQQuantizer')."
            )
        self.alpha = nn.Parameter(torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return functional.pact(x, self.alpha[slot], self.qmin, self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.alpha.data.copy_(scale * self.qmax)

    def current_scale(self) -> Tensor:
        return (self.alpha.detach() / self.qmax).clamp(
            min=functional.MIN_SCALE
        )


@MODELS.register_module()
class DoReFaQuantizer(BaseQuantizer):
    """Tanh-squashed weights and fixed input ranges (Zhou et al., "DoReFa-Net",
    2016). Nothing is learned; inputs keep the calibrated ``clip``."""

    clip: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('clip', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.for_weight:
            return functional.dorefa_weight(x, self.qmax)
        return functional.pact(x, self.clip[slot], self.qmin, self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.clip.copy_(scale * self.qmax)

    def current_scale(self) -> Tensor:
        return self.clip / self.qmax


@MODELS.register_module()
class MinMaxQuantizer(BaseQuantizer):
    """Ranges from the data: the extremes of a weight, a moving average of an
    input's (Jacob et al., CVPR 2018, section 3.1).

    Args:
        momentum (float): Share of the new batch in the average.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, *args: Any, momentum: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < momentum <= 1:
            raise ValueError(
                f'momentum must be in (0, 1], got {momentum}: it is the '
                'share of the new batch.'
            )
        self.momentum = momentum
        self.register_buffer('low', torch.zeros(self.num_scales))
        self.register_buffer('high', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.for_weight:
            low, high = weight_extremes(x.detach(), self.channel_axis)
            low, high = low.view(-1), high.view(-1)
        else:
            if self.training:
                self._average(x.detach(), slot)
            low, high = self.low[slot], self.high[slot]
        if self.channel_axis is None and self.for_weight:
            low, high = low[0], high[0]
        scale = functional.minmax_scale(low, high, self.qmin, self.qmax)
        return fake_quantize(
            x,
            scale,
            torch.zeros_like(scale),
            self.qmin,
            self.qmax,
            self.channel_axis,
        )

    @torch.no_grad()
    def _average(self, x: Tensor, slot: int) -> None:
        # Ranks see other pictures; without the mean their ranges would part.
        extremes = torch.stack([x.amin(), x.amax()]).float()
        dist.all_reduce(extremes, 'mean')
        self.low[slot].lerp_(extremes[0], self.momentum)
        self.high[slot].lerp_(extremes[1], self.momentum)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.low.copy_(low)
        self.high.copy_(high)

    def current_scale(self) -> Tensor:
        return functional.minmax_scale(
            self.low, self.high, self.qmin, self.qmax
        )


def weight_extremes(
    weight: Tensor, channel_axis: int | None
) -> tuple[Tensor, Tensor]:
    """Smallest and largest value a channel, each of shape (C, ) or (1, )."""
    if channel_axis is None:
        rows = weight.reshape(1, -1)
    else:
        rows = weight.transpose(0, channel_axis).flatten(1)
    return rows.amin(1), rows.amax(1)
