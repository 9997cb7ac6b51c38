"""Stock configs of every family become students, at tiny size."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.quantization import quantized_layers
from mmgor.quantization.coverage import ATTENTION, NO_LAYER, SAMPLING
from mmgor.registry import MODELS
from tests.support.conversion import whole, write_float
from tests.support.language import write_bert
from tests.support.students import R18, STUDENTS, tiny

from .configs import ROOT, address, configs_of, folders

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


def converted(tmp_path, model):
    """The student of a detector, built, and what its step has shown."""
    config, out = tmp_path / 'float.py', tmp_path / 'student.py'
    whole(model).dump(config)
    trial = convert(Request(str(config), out), lambda _: None)
    return MODELS.build(Config.fromfile(out).model), trial


@pytest.mark.slow
def test_the_student_and_the_teacher_of_a_semi_supervised_detector(tmp_path):
    name = 'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco'
    model = get_config(f'mmdet::soft_teacher/{name}.py').model
    model.detector = tiny('faster_rcnn/faster-rcnn_r50_fpn_1x_coco')
    built, trial = converted(tmp_path, model)
    assert trial.still == []
    assert trial.shares == []
    layers = [name.partition('.') for name in quantized_layers(built)]
    own, averaged = (
        {path for first, _, path in layers if first == part}
        for part in ('student', 'teacher')
    )
    assert own == averaged and len(own) == trial.quantized / 2


@pytest.mark.slow
def test_a_language_model_stays_in_float(tmp_path):
    transformers = pytest.importorskip('transformers')
    name = 'grounding_dino_r50_scratch_8xb2_1x_coco'
    model = get_config(f'mmdet::grounding_dino/{name}.py').model
    model.backbone.update(R18)
    model.neck.in_channels = [16, 32, 64]
    model.num_queries = 10
    model.encoder.update(num_layers=1, num_cp=0)  # the default needs fairscale
    model.decoder.num_layers = 1
    folder = tmp_path / 'bert'
    folder.mkdir()
    model.language_model.name = write_bert(folder)
    try:
        MODELS.build(model.language_model)(['1. 2.'])
    except Exception as error:  # which versions it runs with is mmdet's matter
        version = transformers.__version__
        pytest.skip(f"mmdet's BERT fails with transformers {version}: {error}")
    built, trial = converted(tmp_path, model)
    assert trial.still == []
    assert {share.cause for share in trial.shares} == {
        ATTENTION,
        SAMPLING,
        NO_LAYER,
        'not wrapped: language_model',
    }
    layers = quantized_layers(built)
    assert {name for name in layers if 'text' in name} == {
        'text_feat_map',
        'encoder.text_layers.0.ffn.layers.0.0',
        'encoder.text_layers.0.ffn.layers.1',
    }
    fusion = [name for name in layers if 'fusion' in name]
    assert len(fusion) == 6  # of images and of text: two inputs, one output
    assert layers['bbox_head.reg_branches.0.4'].weight_quantizer.bits == 8


def test_the_zoo_has_an_algorithm_per_folder():
    names = [next(configs_of(folder, 1), None) for folder in folders()]
    assert len(names) > 90
    assert all((ROOT / name).is_file() for name in names if name)
    assert 'atss/atss_r18_fpn_8xb8-amp-lsj-200e_coco.py' in names
    for name in (n for n in names if n):
        found = address(name)
        assert found == f'mmdet::{name}' or Path(found).is_file()
    assert address('gn+ws/x.py') == str(ROOT / 'gn+ws' / 'x.py')
