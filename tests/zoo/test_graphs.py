"""The parts of stock detectors are one graph each, with their quantizers."""

import pytest
import torch

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.students import quantized, tiny

DENSE = [
    'retinanet/retinanet_r18_fpn_1x_coco',
    'yolox/yolox_nano_8xb8-300e_coco',
]


@pytest.mark.parametrize('name', DENSE)
def test_a_part_is_one_graph(name, monkeypatch):
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = MODELS.build(quantized(tiny(name)))
    model.init_weights()
    images = torch.randn(2, 3, 64, 64)
    calibrate(model, [images], lambda x: model(x, mode='tensor'))
    model.train()
    x = images
    for part in (model.backbone, model.neck, model.bbox_head):
        graph = torch.compile(part, backend='eager', fullgraph=True)
        want = part(x)
        torch.testing.assert_close(graph(x), want)
        x = want
    torch._dynamo.reset()
