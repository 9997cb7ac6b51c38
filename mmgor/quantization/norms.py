"""Batch norm that keeps the statistics it was loaded with."""

from torch import nn

from mmgor.registry import MODELS


@MODELS.register_module('EvalBN')
class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm in evaluation mode throughout: ``norm_cfg=dict(type=
    'EvalBN', eps=...)`` of a backbone, neck or head.

    For a few epochs of QAT from a trained network. Small batches of other
    pictures than it was trained on (no mosaic, another size) have other
    statistics, which the student would have to learn in place of the low
    bits. Scale and shift stay trainable; keys are those of batch norm.
    """

    def train(self, mode: bool = True) -> 'EvalBatchNorm2d':
        return super().train(False)
