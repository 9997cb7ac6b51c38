"""Batch norm that keeps its loaded statistics during training."""

from torch import nn

from mmgor.registry import MODELS


@MODELS.register_module('EvalBN')
class EvalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that is always in evaluation mode.

    Write ``norm_cfg=dict(type='EvalBN', eps=...)`` in a backbone, neck or
    head. It is meant for a few epochs of QAT that start from a trained
    network. Small batches of images that differ from those it was trained on
    (no mosaic, another size) have other statistics, and the student would
    spend its training on them and not on the low bits. Scale and shift stay
    trainable. State-dict keys are those of batch norm.
    """

    def train(self, mode: bool = True) -> 'EvalBatchNorm2d':
        return super().train(False)
