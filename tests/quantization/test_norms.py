import torch
from mmcv.cnn import ConvModule

from mmgor.quantization import EvalBatchNorm2d


def test_eval_bn_keeps_its_statistics():
    conv = ConvModule(3, 4, 1, norm_cfg=dict(type='EvalBN', eps=0.001))
    conv.train()
    before = conv.state_dict()['bn.running_mean'].clone()
    conv(torch.randn(2, 3, 4, 4) + 7)
    assert isinstance(conv.norm, EvalBatchNorm2d)
    assert conv.norm.weight.requires_grad and conv.norm.eps == 0.001
    assert torch.equal(conv.state_dict()['bn.running_mean'], before)
