"""A tiny student of each target of .tflite: exported, read back, run."""

import numpy as np
import pytest
import torch

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.litert.rules import TFLiteFile
from mmgor.deploy.runtime.detector import Detector
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.one_level import NAMES, SIZE, student
from tests.support.training import loader


@pytest.mark.slow
@pytest.mark.parametrize('target', ['litert', 'ethos-u'])
@torch.no_grad()
def test_a_student_of_a_target(target, tmp_path):
    pytest.importorskip('litert_torch')
    utils = pytest.importorskip('ai_edge_litert.tools.flatbuffer_utils')
    model, cfg = student(target=target)
    cfg.test_dataloader = loader(tmp_path, 'eval')
    path = tmp_path / 'student.tflite'
    done = export_detector(model, cfg, path, SIZE, NAMES, target=target)
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
    model, cfg = student()
    path = tmp_path / 'student.tflite'
    match = r'litert could not run it in integers: .*CONV_2D of backbone'
    with pytest.raises(ValueError, match=match):
        export_detector(model, cfg, path, SIZE, NAMES)
    assert not path.exists()
