"""A quantized student of one stage and one level, which is exported fast."""

import torch
from mmengine.config import Config

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg

NAMES = ('a', 'b', 'c')
SIZE = (64, 64)


def student(bits=4, **quant):
    """The calibrated model and its config."""
    torch.manual_seed(0)
    cfg = quantized_cfg(w_bits=bits, a_bits=bits, **quant)
    cfg.backbone.update(num_stages=1, out_indices=(0,))
    cfg.backbone.update(strides=(1,), dilations=(1,))
    cfg.neck.update(in_channels=[8], start_level=0, num_outs=1)
    cfg.bbox_head.anchor_generator.strides = [4]
    model = MODELS.build(cfg)
    calibrate(model, [torch.randn(2, 3, *SIZE)], model)
    return model.eval(), Config(dict(model=cfg))
