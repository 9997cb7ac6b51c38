import pytest
import torch
from mmengine.hub import get_config
from torch import nn

from mmgor.image_channels import image_channels
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg


def stock(name):
    cfg = get_config(f'mmdet::{name}.py').model
    cfg.backbone.init_cfg = None
    return cfg


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_channels_of_the_first_convolution(channels):
    for cfg in (retinanet_cfg(), quantized_cfg()):
        cfg.backbone.in_channels = channels
        model = MODELS.build(cfg)
        assert image_channels(model) == channels
        hooks = [m._forward_pre_hooks for m in model.backbone.modules()]
        assert not any(hooks)


def test_channels_of_a_layer_that_reads_four_pixels():
    """YOLOX's first convolution has twelve input channels."""
    cfg = stock('yolox/yolox_nano_8xb8-300e_coco')
    assert image_channels(MODELS.build(cfg)) == 3


def test_models_whose_first_layer_is_not_reached():
    model = nn.Module()
    assert image_channels(model) is None
    model.extract_feat = lambda x: x[:, [2, 1, 0]]
    model.layer = nn.Conv2d(3, 3, 1)
    assert image_channels(model) is None
    model.extract_feat = lambda x: model.layer(torch.cat([x, x, x], 1))
    assert image_channels(model) == 1
