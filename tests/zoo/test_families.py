"""Stock configs of every family become students, at tiny size."""

import pytest
from mmengine.config import Config
from torch import nn

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.registry import MODELS
from tests.support.conversion import write_float
from tests.support.students import STUDENTS

from .configs import ROOT, configs_of, folders

# tests/conversion converts the other families.
OTHERS = {
    'retinanet_r18_fpn_1x_coco',
    'yolox_nano_8xb8-300e_coco',
    'yolov3_mobilenetv2_8xb24-320-300e_coco',
    'faster-rcnn_r50_fpn_1x_coco',
    'deformable-detr_r50_16xb2-50e_coco',
}
NAMES = [name for name in STUDENTS if name.split('/')[1] not in OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_every_layer_is_quantized(name, tmp_path):
    out = tmp_path / 'student.py'
    request = Request(str(write_float(tmp_path, name)), out)
    trial = convert(request, lambda _: None)
    assert trial.still == []
    model = MODELS.build(Config.fromfile(out).model)
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    stock = [
        key.split('.')[-1]
        for key, layer in model.named_modules()
        if isinstance(layer, layers) and not hasattr(layer, 'weight_quantizer')
    ]
    # What stays in float in a transformer.
    in_float = {'sampling_offsets', 'attention_weights', 'out_proj'}
    assert {*stock} == (in_float if 'decoder' in model._modules else set())


def test_the_zoo_has_an_algorithm_per_folder():
    names = [next(configs_of(folder, 1), None) for folder in folders()]
    assert len(names) > 90
    assert all((ROOT / name).is_file() for name in names if name)
    assert 'atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py' in names
