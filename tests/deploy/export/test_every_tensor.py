"""Graphs of networks that round every tensor (``tensors='all'``)."""

import onnx
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.export.frozen import freeze
from mmgor.deploy.head_outputs import flatten
from mmgor.quantization import QuantPolicy, calibrate
from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.tensors.prepare import round_tensors
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg

NAMES = ('a', 'b', 'c')
SIDES = 64, 96
# What reads rounded tensors alone. A ReLU is part of the layer before it.
READERS = {'Conv', 'Add', 'Concat', 'Resize', 'MaxPool'}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    cfg = quantized_cfg(w_bits=4, a_bits=4, tensors='all')
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    images = torch.randn(1, 3, *SIDES)
    calibrate(model, [images], lambda x: model(x, mode='tensor'))
    path = tmp_path_factory.mktemp('all') / 'student.onnx'
    export_detector(model, Config(dict(model=cfg)), path, SIDES, NAMES)
    with torch.no_grad():
        wanted = flatten(model(images, mode='tensor'))
    return path, images, wanted


def test_every_operator_reads_rounded_tensors(exported):
    graph = onnx.load(exported[0]).graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = [node for node in graph.node if node.op_type in READERS]
    assert {node.op_type for node in readers} >= {'Conv', 'Add', 'MaxPool'}
    for node in readers:
        data = node.input[:2] if node.op_type == 'Add' else node.input[:1]
        for name in data:
            assert makers[name].op_type == 'DequantizeLinear', node.name


def test_outputs_are_rounded(exported):
    graph = onnx.load(exported[0]).graph
    makers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        assert makers[output.name].op_type == 'DequantizeLinear'


def test_a_tensor_is_rounded_once(exported):
    graph = onnx.load(exported[0]).graph
    rounded = [n.input[0] for n in graph.node if n.op_type == 'QuantizeLinear']
    assert len(set(rounded)) == len(rounded)


def test_the_file_computes_what_torch_does(exported):
    path, images, wanted = exported
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry('session.disable_quant_qdq', '1')
    session = onnxruntime.InferenceSession(path, options)
    got = session.run(None, dict(images=images.numpy()))
    for ours, theirs in zip(wanted, got, strict=True):
        apart = (ours - torch.from_numpy(theirs)).abs()
        # Values halfway between two steps may round either way.
        assert apart.mean() < 0.01 * ours.std()


class TwoLevels(nn.Module):
    """Two layers that read one tensor at each of two levels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.cls = nn.Conv2d(4, 2, 1)
        self.reg = nn.Conv2d(4, 2, 1)

    def forward(self, fine, coarse):
        maps = [self.stem(x).relu() for x in (fine, coarse)]
        return [layer(x) for x in maps for layer in (self.cls, self.reg)]


def test_a_shared_quantizer_is_traced_with_the_slot_of_its_level():
    torch.manual_seed(0)
    net, policy = TwoLevels(), QuantPolicy(tensors='all')
    levels = dict(
        fine=torch.randn(1, 3, 8, 8), coarse=5 * torch.randn(1, 3, 4, 4)
    )
    quantize_layers(net, policy, set(), dict(stem=2, cls=2, reg=2))
    round_tensors(net, policy, [levels], given=False)
    assert net.cls.input_quantizer is net.reg.input_quantizer
    calibrate(net, [tuple(levels.values())], lambda maps: net(*maps))
    frozen = freeze(net)
    with torch.no_grad():
        traced = torch.export.export(frozen, (*levels.values(),)).module()
        for ours, theirs in zip(frozen(**levels), traced(*levels.values())):
            assert torch.equal(ours, theirs)
