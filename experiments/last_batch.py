"""Self-distillation from the last mini-batch. Nothing here is supported.

Tried in experiments/plans/power.yaml, where it does not help.
"""

from typing import Any

import torch
from mmdet.models.detectors import RetinaNet
from torch import Tensor

from mmgor.dense_heads.scores import score_logits
from mmgor.distillation import Recorder
from mmgor.distillation.heads.scores import ScoreKDHead
from mmgor.registry import MODELS


@MODELS.register_module()
class LastBatchRetinaNet(RetinaNet):
    """DLB (Shen et al., "Self-Distillation from the Last Mini-Batch for
    Consistency Regularization", CVPR 2022) for a dense detector.

    A step takes the images that it is given and, before them, those of the
    last step, as they were: the same flips, the same labels. The task loss is
    over both. For images of the last step, class scores of that step are the
    target, as a teacher's are in :class:`ScoreKDHead`. So a batch of n images
    makes a step of 2 n, and the first step of a training one of n.

    Args:
        kd_weight (float): Weight of the distillation loss; 0: images are
            seen twice in a row, and nothing else.
        temperature (float): Of the scores.
    """

    def __init__(
        self, kd_weight: float, temperature: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kd_weight = kd_weight
        # In a tuple: it is not a part of the model.
        self._divergence = (ScoreKDHead(temperature=temperature),)
        self._last: tuple[Tensor, list, Tensor] | None = None

    def stock_loss(self, inputs: Tensor, data_samples: list) -> dict:
        """RetinaNet's own losses, on which calibration runs."""
        return super().loss(inputs, data_samples)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        inputs, samples, target = batch_inputs, batch_data_samples, None
        if self._last is not None:
            before, labels, target = self._last
            inputs = torch.cat([before, inputs])
            samples = [*labels, *samples]
        with Recorder(self, ['bbox_head']) as recorder:
            losses = super().loss(inputs, samples)
        maps = score_logits(self.bbox_head, recorder['bbox_head'])
        scores = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        if target is not None:
            divergence = self._divergence[0]._mean_kl(
                scores[: len(target)], target, scores.new_ones(scores.shape[2])
            )
            losses['loss_kd_last'] = self.kd_weight * divergence
        new = scores[-len(batch_inputs) :].detach()
        self._last = batch_inputs, batch_data_samples, new
        return losses
