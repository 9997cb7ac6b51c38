"""MACs, BitOPs, bytes and times of layers, against hand-made numbers."""

from itertools import count

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmgor.deploy.cost import measure as module
from mmgor.deploy.cost.measure import layer_costs
from mmgor.deploy.cost.rows import EVERYTHING_ELSE, LayerCost, total_costs
from mmgor.quantization import QuantPolicy, layer_table, quantized_layers
from mmgor.quantization.convert import quantize_layers
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg
from tests.support.students import quantized, tiny

SIZE = (32, 64)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 12, 3, padding=1, groups=3)

    def forward(self, x):
        return self.grouped(self.norm(self.first(x)).relu())


class Head(nn.Module):
    """One convolution and one linear layer for both levels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 5, 1)
        self.fc = nn.Linear(5, 7)
        self.unused = nn.Linear(2, 2)

    def forward(self, feats):
        return [self.fc(self.conv(x).mean((2, 3))) for x in feats]


class Toy(nn.Module):
    """A detector of two pyramid levels; its first stage is at W2A4, its head
    at W3A8, its neck in float."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.neck = nn.ConvTranspose2d(12, 4, 2, stride=2, groups=2)
        self.bbox_head = Head()
        quantize_layers(self.backbone, QuantPolicy(w_bits=2, a_bits=4), set())
        quantize_layers(self.bbox_head, QuantPolicy(w_bits=3, a_bits=8), set())

    def extract_feat(self, x):
        x = self.neck(self.backbone(x))
        return x, F.avg_pool2d(x, 2)


class TwoStage(Toy):
    def __init__(self):
        super().__init__()
        self.rpn_head, self.roi_head = self.bbox_head, Head()
        del self.bbox_head


@pytest.fixture(scope='module')
def rows():
    return {row.name: row for row in layer_costs(Toy(), SIZE)}


@pytest.mark.parametrize(
    ('name', 'macs', 'calls', 'output', 'bits'),
    [
        # outputs x (input channels per group x kernel)
        ('backbone.first', 6 * 16 * 32 * (3 * 9), 1, (6, 16, 32), 2 * 4),
        ('backbone.grouped', 12 * 16 * 32 * (2 * 9), 1, (12, 16, 32), 2 * 4),
        # inputs x (output channels per group x kernel)
        ('neck', 12 * 16 * 32 * (2 * 4), 1, (4, 32, 64), 32 * 32),
        # both levels
        (
            'bbox_head.conv',
            5 * (32 * 64 + 16 * 32) * 4,
            2,
            (5, 32, 64),
            3 * 8,
        ),
        ('bbox_head.fc', 2 * 7 * 5, 2, (7,), 3 * 8),
        ('bbox_head.unused', 0, 0, (), 3 * 8),
    ],
)
def test_macs_and_bitops(rows, name, macs, calls, output, bits):
    row = rows[name]
    assert (row.macs, row.calls, row.output) == (macs, calls, output)
    assert row.bitops == macs * bits


def test_a_transposed_convolution_may_be_quantized():
    toy = Toy()
    float_macs = {r.name: r.macs for r in layer_costs(toy, SIZE)}
    toy.neck = nn.Sequential(toy.neck)
    quantize_layers(toy.neck, QuantPolicy(), set())
    macs = {r.name: r.macs for r in layer_costs(toy, SIZE)}
    assert macs['neck.0'] == float_macs['neck'] == 12 * 16 * 32 * 8


def test_totals(rows):
    total = total_costs(list(rows.values()))
    macs = 82944 + 110592 + 49152 + 51200 + 70
    assert total.macs == macs
    assert total.float_bitops == 1024 * macs
    assert total.bitops == 8 * 193536 + 1024 * 49152 + 24 * 51270
    # weights: 162 and 216 at 2, 96 in float, 20, 35 and 4 at 3 bits
    bits = 378 * 2 + 96 * 32 + 59 * 3
    assert total.weight_bits == pytest.approx(bits / 533)


def test_no_rows_have_no_bits():
    assert total_costs([]).weight_bits == 0


def test_bytes_are_those_of_the_table():
    model = MODELS.build(quantized_cfg())
    table = layer_table(model)
    rows = layer_costs(model, (64, 64))
    assert [r.name for r in rows[:-1]] == [r['name'] for r in table['layers']]
    assert [r.bytes for r in rows[:-1]] == [
        r['bytes'] for r in table['layers']
    ]
    total = total_costs(rows)
    assert total.bytes == table['total']['bytes']
    assert total.float_bytes == table['total']['float_bytes']
    assert total.params == table['total']['params']
    # five levels share the head
    calls = {r.calls for r in rows if r.name.startswith('bbox_head.')}
    assert calls == {5}


def test_a_two_stage_detector_runs_to_its_rpn():
    rows = {row.name: row for row in layer_costs(TwoStage(), SIZE)}
    assert rows['rpn_head.conv'].calls == 2
    assert rows['roi_head.conv'].calls == rows['roi_head.conv'].macs == 0
    assert rows['roi_head.conv'].bytes > 0


def test_a_detr_runs_through_its_transformer():
    name = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'
    model = MODELS.build(quantized(tiny(name)))
    rows = {row.name: row for row in layer_costs(model, (64, 64))}
    # 10 queries, 256 channels, 32 hidden ones
    assert rows['decoder.layers.1.ffn.layers.1'].macs == 10 * 256 * 32
    # 80 classes; both decoder layers share the branch
    assert rows['bbox_head.cls_branches.0'].macs == 2 * 10 * 256 * 80
    # nn.MultiheadAttention reads the weight of out_proj and counts it: four
    # projections of 10 queries
    attention = 'decoder.layers.0.self_attn.attn'
    assert rows[f'{attention}.out_proj'].calls == 0
    assert rows[attention].macs == 10 * 4 * 256**2


def test_the_model_is_left_as_it_was():
    toy = Toy()
    toy.train()
    toy.backbone.norm.eval()
    before = {k: v.clone() for k, v in toy.state_dict().items()}
    children = list(toy.modules())
    layer_costs(toy, SIZE)
    assert list(toy.modules()) == children
    assert toy.training and not toy.backbone.norm.training
    assert all(
        not (m._forward_hooks or m._forward_pre_hooks) for m in children
    )
    after = toy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_shared_quantizers_are_put_back():
    """With ``tensors='all'``, in which layers share quantizers."""
    model = MODELS.build(quantized_cfg(w_bits=4, a_bits=4, tensors='all'))
    before = dict(model.named_modules())
    keys = [*model.state_dict()]
    layer_costs(model, (64, 64))
    assert dict(model.named_modules()) == before
    assert [*model.state_dict()] == keys
    block = model.backbone.layer2[0]
    assert block.downsample[0].input_quantizer is block.conv1.input_quantizer


def test_it_runs_in_float(monkeypatch):
    """Quantizers do not run: they neither round nor check for NaN."""
    toy = Toy()
    for layer in quantized_layers(toy).values():
        for quantizer in (layer.weight_quantizer, layer.input_quantizer):
            monkeypatch.setattr(quantizer, 'forward', None)
    layer_costs(toy, SIZE)


def test_pieces_of_a_pass_have_medians_of_their_own(monkeypatch):
    """Each reading of the clock is a second later; one pass is interrupted."""
    ticks = count()
    # A pass of the toy looks at it 23 times: at its start and end, and three
    # times for each of 7 calls. Number 2 ends the first layer's.
    interrupted = 3 * 23 + 2

    def clock():
        tick = next(ticks)
        return tick + (1000 if tick >= interrupted else 0)

    monkeypatch.setattr(module, 'perf_counter', clock)
    seconds = {row.name: row.seconds for row in layer_costs(Toy(), SIZE)}
    assert seconds == {
        'backbone.first': 1,
        'backbone.grouped': 1,
        'neck': 1,
        'bbox_head.conv': 2,
        'bbox_head.fc': 2,
        'bbox_head.unused': 0,
        # before each call, and after the last
        EVERYTHING_ELSE: 8,
    }
    assert next(ticks) == 23 * (module.WARMUP_PASSES + module.TIMED_PASSES)


def test_the_last_row_has_the_rest(rows):
    rest = list(rows.values())[-1]
    # weight and bias of the norm; its running mean and variance are stored
    assert rest == LayerCost(
        name=EVERYTHING_ELSE,
        type='',
        shape=(),
        params=12,
        w_bits=32,
        a_bits=32,
        input='float',
        bytes=4 * 24,
        float_bytes=4 * 24,
        seconds=rest.seconds,
    )


@pytest.mark.parametrize('size', [(0, 64), (64, -1), (31, 64)])
def test_small_sizes_are_refused(size):
    with pytest.raises(ValueError, match='too small: expected a height and'):
        layer_costs(Toy(), size)


def test_a_size_that_does_not_fit():
    class Picky(Toy):
        def extract_feat(self, x):
            return self.neck(x[:, :2])

    with pytest.raises(ValueError, match='Picky does not run on 32 x 64'):
        layer_costs(Picky(), SIZE)


def test_only_detectors():
    with pytest.raises(ValueError, match=r'bbox_head or rpn_head, got a Conv'):
        layer_costs(nn.Conv2d(3, 3, 1), SIZE)
