import copy
from collections import Counter

import pytest
import torch
from mmengine.hub import get_config

from mmgor.quantization import calibrate, quantized_layers
from mmgor.quantization.policy import prediction_layers
from mmgor.registry import MODELS
from tests.support.models import make_batch
from tests.support.students import R18, quantized, tiny

NAME = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'


@pytest.fixture(scope='module')
def pair():
    """A stock detector and a quantized one with the same weights."""
    torch.manual_seed(0)
    cfg = tiny(NAME)
    stock = MODELS.build(copy.deepcopy(cfg)).eval()
    stock.init_weights()  # before, mmdet's level_embed is whatever was there
    model = MODELS.build(quantized(cfg)).eval()
    missing, unexpected = model.load_state_dict(stock.state_dict(), False)
    assert (missing, unexpected) == ([], [])
    return stock, model


def test_bits(pair):
    bits = {
        name: layer.weight_quantizer.bits
        for name, layer in quantized_layers(pair[1]).items()
        if not name.startswith(('backbone', 'neck'))
    }
    # By hand: an encoder layer has the value and output projection of one
    # deformable attention and two feed-forward layers, and so has a decoder
    # layer; there are two of each. The head's branches are shared.
    assert Counter(name.split('.')[0] for name in bits) == dict(
        encoder=8, decoder=8, reference_points_fc=1, bbox_head=4
    )
    assert {name for name in bits if bits[name] == 8} == {
        'reference_points_fc',
        'bbox_head.cls_branches.0',
        'bbox_head.reg_branches.0.4',
    }
    assert bits['bbox_head.reg_branches.0.2'] == 4


def test_during_calibration_it_equals_the_stock_detector(pair):
    """Observers change nothing, in evaluation and in training mode. Every
    quantized layer runs, or ``calibrate`` would raise."""
    stock, model = pair
    batch = make_batch(side=64)
    want = stock(**copy.deepcopy(batch), mode='tensor')
    seen = []

    def run(data):
        model.eval()  # dropout off, as in the stock detector
        seen.append(model(**data, mode='tensor'))
        model.train()
        model(**data, mode='tensor')

    calibrate(model, [batch], run)
    for a, b in zip(seen[0], want):
        torch.testing.assert_close(a, b)
    model.eval()
    first, again = (
        model(**copy.deepcopy(batch), mode='tensor')[0] for _ in range(2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, want[0])


@pytest.mark.parametrize('quant', [dict(tensors='all'), dict(target='litert')])
def test_rounding_every_tensor_is_refused(quant):
    with pytest.raises(
        ValueError, match="QuantDETR expected tensors='inputs'"
    ):
        MODELS.build(dict(type='QuantDETR', quant=quant))


def test_patterns_are_paths_in_the_detector():
    cfg = quantized(tiny(NAME))
    cfg.quant = dict(overrides={'encoder.layers.0.*': None})
    layers = quantized_layers(MODELS.build(cfg))
    assert not any(name.startswith('encoder.layers.0.') for name in layers)
    assert 'encoder.layers.1.ffn.layers.1' in layers
    cfg = quantized(tiny(NAME))
    cfg.quant = dict(overrides={'backbone.*': None})
    with pytest.raises(ValueError, match=r"'backbone\.\*' matches no layer"):
        MODELS.build(cfg)


def test_only_the_last_layer_of_a_branch_predicts():
    names = [
        *('reg_branches.0.0', 'reg_branches.0.2', 'reg_branches.1.0'),
        *('reg_branches.1.2', 'cls_branches.0', 'cls_branches.1'),
        *('multi_level_conv_obj.0', 'multi_level_conv_obj.1'),
        'stack.0.fc_cls',
        'cls_convs.0.conv',
    ]
    assert prediction_layers(names) == {
        *('reg_branches.0.2', 'reg_branches.1.2'),
        *('cls_branches.0', 'cls_branches.1'),
        *('multi_level_conv_obj.0', 'multi_level_conv_obj.1'),
        'stack.0.fc_cls',
    }


@pytest.mark.parametrize(
    'name, channels, layers, coordinates',
    [
        # By hand, of two layers each. A feed-forward network has 2. DETR has
        # no other, since it attends by nn.MultiheadAttention.
        ('detr/detr_r50_8xb2-150e_coco', [64], 8, set()),
        # Conditional attention to queries has 6, to memory 7 and in the second
        # layer 6; the decoder has two more networks of 2.
        (
            'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
            [64],
            4 + 15 + 14 + 4,
            {'decoder.ref_point_head.layers.1'},
        ),
        # And one more a network for sizes and for the encoder's positions.
        (
            'dab_detr/dab-detr_r50_8xb2-50e_coco',
            [64],
            4 + 15 + 14 + 4 + 2 + 2,
            {'decoder.ref_anchor_head.layers.1'},
        ),
        # Deformable attention has 2 that are quantized.
        (
            'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',
            [16, 32, 64],
            8 + 8 + 2 + 2,
            set(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
@pytest.mark.slow
def test_the_other_detrs(name, channels, layers, coordinates):
    torch.manual_seed(0)
    model = MODELS.build(quantized(few_layers(name, channels)))
    model.init_weights()
    own = {
        key: layer.weight_quantizer.bits
        for key, layer in quantized_layers(model).items()
        if not key.startswith(('backbone', 'neck', 'bbox_head'))
    }
    assert len(own) == layers
    assert {key for key, bits in own.items() if bits == 8} == coordinates
    batch = make_batch(side=64)
    calibrate(model, [batch], lambda b: model(**copy.deepcopy(b), mode='loss'))
    loss, _ = model.train().parse_losses(model(**batch, mode='loss'))
    loss.backward()
    idle = [
        key
        for key, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert torch.isfinite(loss) and idle == []
    model.eval()(**batch, mode='tensor')


def few_layers(name, channels):
    two = dict(
        num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=32))
    )
    cfg = get_config(f'mmdet::{name}.py')
    small = dict(
        num_queries=10,
        backbone=R18,
        neck=dict(in_channels=channels),
        encoder=two,
        decoder=two,
    )
    cfg.merge_from_dict(dict(model=small))
    cfg.model.data_preprocessor.pop('batch_augments', None)
    return cfg.model
