"""A tiny student of each target of .tflite: exported, read back, run."""

import numpy as np
import pytest
import torch

from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.litert.rules import TFLiteFile
from mmgor.deploy.runtime.detector import Detector
from mmgor.deploy.runtime.runtime import open_runtime
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.training import training_config

SIZE = (64, 96)


def student(folder, **quant):
    """One stage and one level: the conversion takes seconds."""
    torch.manual_seed(0)
    cfg = training_config(folder, folder, dict(config='', checkpoint=''))
    model = cfg.model
    for key in ('teachers', 'kd_heads', 'gor_weighting'):
        model.pop(key)
    model.type = model.pop('detector')
    for part in (model.backbone, model.neck, model.bbox_head):
        part.quant = dict(w_bits=4, a_bits=4, **quant)
    model.backbone.update(num_stages=1, out_indices=(0,))
    model.backbone.update(strides=(1,), dilations=(1,))
    model.neck.update(in_channels=[8], start_level=0, num_outs=1)
    model.bbox_head.anchor_generator.strides = [4]
    built = MODELS.build(model)
    calibrate(built, [torch.randn(2, 3, *SIZE)], built)
    return built.eval(), cfg


@pytest.mark.slow
@pytest.mark.parametrize('target', ['litert', 'ethos-u'])
@torch.no_grad()
def test_a_student_of_a_target(target, tmp_path):
    pytest.importorskip('litert_torch')
    utils = pytest.importorskip('ai_edge_litert.tools.flatbuffer_utils')
    model, cfg = student(tmp_path, target=target)
    path = tmp_path / 'student.tflite'
    done = export_detector(model, cfg, path, SIZE, CLASSES, target=target)
    assert done['bytes'] == path.stat().st_size
    assert read_metadata(path)['target'] == target
    file = TFLiteFile(utils.read_model(path))
    ends = [t for op in file.operators for t in (*op.inputs, *op.outputs)]
    kinds = {file.type_of(t) for t in ends}
    assert kinds == {'INT8', 'INT32'}  # biases and shapes have 32 bits
    names = [str(op) for op in file.operators]
    assert 'CONV_2D of backbone.layer1.0.conv1' in names
    images = torch.randn(1, 3, *SIZE)
    pairs = zip(flatten(open_runtime(path)(images)), flatten(model(images)))
    for got, wanted in pairs:
        assert (got - wanted).abs().mean() < 0.02 * wanted.std()
    # Decoding and NMS are outside of the file.
    (sample,) = Detector(path, score_thr=0.0)(np.zeros((64, 64, 3), np.uint8))
    assert sample.pred_instances.bboxes.shape[1] == 4


@pytest.mark.slow
def test_float_layers_are_named(tmp_path):
    pytest.importorskip('litert_torch')
    model, cfg = student(tmp_path)
    path = tmp_path / 'student.tflite'
    match = r'litert could not run it in integers: .*CONV_2D of backbone'
    with pytest.raises(ValueError, match=match):
        export_detector(model, cfg, path, SIZE, CLASSES)
    assert not path.exists()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(dynamic=True), r'has one size.*Leave out --dynamic'),
        (dict(nms=True), r'gives the outputs of the head.*Leave out --nms'),
        (dict(int4=True, target='ethos-u'), 'Leave out --int4'),
    ],
)
def test_options_that_a_file_can_not_have(options, message, tmp_path):
    model, cfg = student(tmp_path, target=options.get('target', 'litert'))
    path = tmp_path / 'student.tflite'
    with pytest.raises(ValueError, match=message):
        export_detector(model, cfg, path, SIZE, CLASSES, **options)
    assert not path.exists()
