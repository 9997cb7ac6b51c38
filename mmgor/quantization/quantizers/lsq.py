"""The quantizers LSQ (learned step size) and LSQ+ (with an offset)."""

from typing import Any

import torch
from torch import Tensor, nn

from mmgor.registry import MODELS

from . import functional
from .base import BaseQuantizer

# It runs functional.fake_quantize, as one kernel in training.
from .compiled import fake_quantize


@MODELS.register_module()
class LSQQuantizer(BaseQuantizer):
    """LSQ: the step size is learned.

    Esser et al., "Learned Step Size Quantization", ICLR 2020. The parameter
    ``log_scale``, of shape (num_scales, ), is the logarithm of the step size
    ``s`` in units of the tensor.

    Step sizes differ by orders of magnitude between layers, while an Adam step
    has the size of the learning rate. On ``s`` itself such a step would be
    large for a small ``s``. In the log domain (as in TQT, Jain et al., MLSys
    2020) it is a relative change. The gradient is not the derivative with
    respect to the logarithm, ``s * dL/ds``, which would vanish with ``s``. It
    is that of LSQ, ``factor * dL/ds``, with the factor of
    :func:`functional.lsq_gradient_factor`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.log_scale = nn.Parameter(torch.zeros(self.num_scales))

    def quantize(self, x: Tensor, slot: int) -> Tensor:
        scale = self._scale(slot)
        return fake_quantize(
            x,
            scale,
            self._offsets(),
            self.qmin,
            self.qmax,
            axis=self._axis,
            log_scale=self.log_scale,
            factor=functional.lsq_gradient_factor(
                x.numel() // scale.numel(), self.highest
            ),
            slot=None if self.num_slots == 1 else slot,
        )

    @property
    def _axis(self) -> int | None:
        """Of a tensor, along which the scales lie."""
        if self.channels > 1:
            return 1
        return 0 if self.per_channel else None

    def _of_slot(self, values: Tensor, slot: int) -> Tensor:
        """The values of a slot, one per channel."""
        if self.num_slots == 1:
            return values
        return values.view(-1, self.channels)[slot]

    @torch.no_grad()
    def _scale(self, slot: int) -> Tensor:
        return self._of_slot(self.log_scale, slot).exp()

    def _offsets(self) -> Tensor | None:
        """Values of the integer 0 of all slots; None: 0."""
        return None

    @torch.no_grad()
    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale = self._scale(slot)
        if self._axis is None:
            scale = scale.view(())
        return scale, torch.zeros_like(scale)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.log_scale.data.copy_(scale.log())


@MODELS.register_module()
class LSQPlusQuantizer(LSQQuantizer):
    """LSQ+: LSQ with a learned offset.

    Bhalgat et al., "LSQ+", CVPRW 2020. It suits inputs with a short negative
    tail, as after SiLU (Swish) or Hardswish. The parameter ``offset`` has
    shape (num_scales, ) and the unit of the input. Weights are refused: their
    ranges stay symmetric, so that batch norm folds exactly.
    """

    asymmetric = True
    inputs_only = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offset = nn.Parameter(torch.zeros(self.num_scales))

    def _offsets(self) -> Tensor:
        return self.offset

    @torch.no_grad()
    def step(self, x: Tensor, slot: int) -> tuple[Tensor, Tensor]:
        scale, _ = super().step(x, slot)
        offset = self._of_slot(self.offset, slot).view_as(scale)
        return scale, -torch.round(offset / scale)

    def choose_range(self, signed: bool) -> None:
        super().choose_range(signed=False)

    def set_ranges(
        self, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor
    ) -> None:
        super().set_ranges(scale, offset, low, high)
        self.offset.data.copy_(offset)
