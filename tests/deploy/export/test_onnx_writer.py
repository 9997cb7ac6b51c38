"""A tiny student of each target: exported, read back, run, checked."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export import saving
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.graph.rules import broken_rules
from mmgor.targets import TARGETS
from tests.support.one_level import NAMES, SIZE, student
from tests.support.onnx_files import run_onnx

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
ONNX_TARGETS = [n for n, t in TARGETS.items() if '.onnx' in t.suffixes]


def activation_types(model):
    """Types of the zero points of QuantizeLinear."""
    arrays = {
        i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer
    }
    return {
        arrays[node.input[2]].dtype.name
        for node in model.graph.node
        if node.op_type == 'QuantizeLinear'
    }


@pytest.mark.parametrize('name', ONNX_TARGETS)
def test_a_student_of_a_target(name, tmp_path):
    model, cfg = student(target=name)
    path = tmp_path / 'student.onnx'
    export_detector(model, cfg, path, SIZE, NAMES)
    assert read_metadata(path)['target'] == name
    target, file = TARGETS[name], onnx.load(path)
    assert not list(broken_rules(file, target))
    assert file.opset_import[0].version == target.opset
    assert activation_types(file) == {target.stored}
    nodes = {node.name for node in file.graph.node}
    assert 'backbone.layer1.0.conv1/Conv' in nodes
    assert len(nodes) == len(file.graph.node)
    # Node by node it computes what was trained.
    images = torch.randn(1, 3, *SIZE)
    got = run_onnx(path, images)
    with torch.no_grad():
        scores, boxes = model(images)
    for have, want in zip(got, [*scores, *boxes], strict=True):
        assert (have - want).abs().mean() < 0.02 * want.std()


def test_without_a_target_types_are_those_of_onnx_runtime(tmp_path):
    model, cfg = student()
    path = tmp_path / 'student.onnx'
    export_detector(model, cfg, path, SIZE, NAMES)
    assert read_metadata(path)['target'] is None
    file = onnx.load(path)
    assert activation_types(file) == {'uint8'}
    assert file.opset_import[0].version == 21


def test_an_operator_that_a_target_lacks(tmp_path, monkeypatch):
    lacking = replace(TARGETS['rknn'], lacks=frozenset({'MaxPool'}))
    monkeypatch.setitem(TARGETS, 'rknn', lacking)
    model, cfg = student(target='rknn')
    with pytest.raises(
        ValueError,
        match=r'rknn could not read it: MaxPool in backbone\.maxpool, an oper',
    ):
        export_detector(model, cfg, tmp_path / 'a.onnx', SIZE, NAMES)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_was_trained_without_a_target(tmp_path):
    model, cfg = student(first_last_bits=8)
    with pytest.raises(ValueError, match=r'8 bits is refused .*: bbox_head'):
        export_detector(
            model, cfg, tmp_path / 'a.onnx', SIZE, NAMES, target='tensorrt'
        )
    assert not list(tmp_path.iterdir())


def test_openvino_keeps_signed_integers_and_clips_floats(tmp_path):
    ov = pytest.importorskip('openvino')
    model, cfg = student(target='x86')
    path = tmp_path / 'student.xml'
    export_detector(model, cfg, path, SIZE, NAMES)
    assert read_metadata(path)['target'] == 'x86'
    operators = ov.Core().read_model(path).get_ops()
    ranges = [
        [op.input_value(i).get_node().data.item() for i in (1, 2)]
        for op in operators
        if op.get_type_name() == 'FakeQuantize'
    ]
    # Zero is an integer of int8 or uint8: -128 to 127 steps, or 0 to 255.
    lows = {round(127 * low / high, 3) for low, high in ranges}
    assert lows == {-128, 0}
    clips = [op for op in operators if op.get_type_name() == 'Clamp']
    types = {op.get_output_element_type(0) for op in clips}
    assert types == {ov.Type.f32}
    # They do the work of a ReLU where the range starts at zero.
    assert any(op.get_attributes()['min'] == 0 for op in clips)
    readers = [
        reader.get_node().get_type_name()
        for op in operators
        if op.get_type_name() == 'Relu'
        for reader in op.output(0).get_target_inputs()
    ]
    assert 'Clamp' not in readers


@pytest.mark.parametrize(
    'said, kind, told',
    [
        ('basic_ios::clear: iostream error', OSError, r'\d+ bytes are free'),
        ('unknown type', RuntimeError, '^unknown type$'),
    ],
)
def test_openvinos_word_for_a_full_disk(
    said, kind, told, tmp_path, monkeypatch
):
    def save_model(*_, **__):
        raise RuntimeError(said)

    model = SimpleNamespace(set_rt_info=lambda *_: None)
    package = SimpleNamespace(save_model=save_model)
    monkeypatch.setattr(saving, 'require', lambda _: package)
    with pytest.raises(kind, match=told):
        saving.save_openvino(model, '{}', tmp_path / 'a.xml')
