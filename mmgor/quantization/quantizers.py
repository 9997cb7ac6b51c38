"""The quantizers: what each learns of one tensor, and how it rounds."""

from functools import partial
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from mmgor.config_values import number
from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer, weight_rows
from .compiled import fake_quantize
from .recomputation import OncePerCall


def _clip_step(peak: Tensor, qmax: Tensor) -> tuple[Tensor, Tensor]:
    """The step that puts ``peak`` on the largest integer; no zero point."""
    scale = peak.float().clamp(min=functional.MIN_SCALE) / qmax.float()
    return scale, torch.zeros_like(scale)


@MODELS.register_module()
class LSQQuantizer(BaseQuantizer):
    """Learned step size (Esser et al., "Learned Step Size Quantization",
    ICLR 2020), learned in the log domain (see :func:`functional.exp_scale`):
    ``log_scale`` is a parameter of shape (num_scales, )."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        return self._round(x, self._scale(x, slot), None)

    def _round(
        self, x: Tensor, scale: Tensor, offset: Tensor | None
    ) -> Tensor:
        bounds = self.qmin, self.qmax
        if self.channels == 1:
            return fake_quantize(x, scale, offset, *bounds, self.per_channel)
        rows = x.flatten(0, 1)  # one a picture and channel
        scale = scale.repeat(len(x))
        offset = None if offset is None else offset.repeat(len(x))
        return fake_quantize(rows, scale, offset, *bounds, True).view_as(x)

    def _of_slot(self, values: Tensor, slot: int) -> Tensor:
        """Shape (), or (channels, )."""
        return values.view(-1, self.channels)[slot].squeeze()

    def _scale(self, x: Tensor, slot: int) -> Tensor:
        log_scale: Tensor = self.log_scale
        if not self.per_channel:
            log_scale = self._of_slot(log_scale, slot)
        count = x.numel() // log_scale.numel()
        factor = functional.lsq_gradient_factor(count, self.highest)
        return functional.exp_scale(log_scale, factor)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(x, slot)
        return scale, torch.zeros_like(scale)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.log_scale.data.copy_(scale.log())


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
        count = x.numel() // self.channels
        factor = functional.lsq_gradient_factor(count, self.highest)
        offset = self._of_slot(self.offset, slot)
        offset = functional.scale_gradient(offset, factor)
        return self._round(x, self._scale(x, slot), offset)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(x, slot)
        return scale, -torch.round(self._of_slot(self.offset, slot) / scale)

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

    clips_symmetrically = True

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

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        return _clip_step(self.alpha[slot], self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.alpha.data.copy_(scale * self.qmax)


@MODELS.register_module()
class DoReFaQuantizer(BaseQuantizer):
    """Tanh-squashed weights and fixed input ranges (Zhou et al., "DoReFa-Net",
    2016). Nothing is learned; inputs keep the calibrated ``clip``."""

    clips_symmetrically = True
    clip: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer('clip', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.for_weight:
            return functional.dorefa_weight(x, self.qmax, self.per_channel)
        return functional.pact(x, self.clip[slot], self.qmin, self.qmax)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        if self.for_weight:
            peak = functional.weight_peak(x, self.per_channel).flatten()
            return _clip_step(peak if self.per_channel else peak[0], self.qmax)
        return _clip_step(self.clip[slot], self.qmax)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.clip.copy_(scale * self.qmax)


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
        self.momentum = number(
            'momentum', momentum, '(0, 1]', 'it is the share of the new batch'
        )
        self._steps = OncePerCall()
        self.register_buffer('low', torch.zeros(self.num_scales))
        self.register_buffer('high', torch.ones(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        if self.training and not self.for_weight:
            # Its average moves on: a second run takes the first one's step.
            scale, _ = self._steps(
                x, partial(self._averaged_step, x.detach(), slot), True
            )
        else:
            scale, _ = self.step(x, slot)
        return fake_quantize(
            x, scale, None, self.qmin, self.qmax, self.per_channel
        )

    def _averaged_step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        self._average(x, slot)
        return self.step(x, slot)

    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        if self.for_weight:
            rows = weight_rows(x.detach(), self.per_channel)
            low, high = rows.aminmax(dim=1)
            if not self.per_channel:
                low, high = low[0], high[0]
        else:
            low, high = self.low[slot], self.high[slot]
        scale = functional.minmax_scale(low, high, self.qmin, self.qmax)
        return scale, torch.zeros_like(scale)

    @torch.no_grad()
    def _average(self, x: Tensor, slot: int) -> None:
        if x.numel() == 0:  # no proposals: the other ranks still reduce
            extremes = torch.stack([self.low[slot], self.high[slot]])
        else:
            extremes = torch.stack(x.aminmax()).float()
        # Ranks see other pictures; without the mean their ranges would part.
        dist.all_reduce(extremes, 'mean')
        self.low[slot].lerp_(extremes[0], self.momentum)
        self.high[slot].lerp_(extremes[1], self.momentum)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.low.copy_(low)
        self.high.copy_(high)
