"""Feature losses with parameters, and every loss in the KD head."""

import math

import pytest
import torch

from mmgor.distillation.losses.features import attention_transfer
from mmgor.distillation.losses.learned_features import (
    channel_masks,
    cross_attention,
    dice_overlap,
    divergence_from_equal,
    drop_positions,
    masked_mean,
    position_weights,
    spatial_masks,
    steer,
)
from mmgor.io.checkpoint import strip_training_keys
from mmgor.registry import MODELS
from tests.support.kd import bound, detector, recorded
from tests.support.models import make_batch, retinanet_cfg

TRAINABLE = [
    dict(type='MGDLoss'),
    dict(type='ACAMLoss', num_masks=3),
    dict(type='ResidualLoss'),
]
LOSSES = [dict(type='AttentionTransferLoss'), *TRAINABLE]
trainable = pytest.mark.parametrize(
    'cfg', TRAINABLE, ids=[x['type'] for x in TRAINABLE]
)
every_loss = pytest.mark.parametrize(
    'cfg', LOSSES, ids=[x['type'] for x in LOSSES]
)


def maps(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator)


def build(cfg, channels=4):
    torch.manual_seed(0)
    return MODELS.build(dict(channels=channels, **cfg))


def test_dropped_positions_by_hand():
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).view(1, 2, 1, 3)
    noise = torch.tensor([0.1, 0.7, 0.6]).view(1, 1, 1, 3)
    got = drop_positions(x, noise, 0.65)
    assert got.flatten().tolist() == [0, 2, 0, 0, 5, 0]
    assert torch.equal(drop_positions(x, noise, 0.0), x)


def test_cross_attention_equals_the_loops():
    q, k = maps(2, 3, 2, 3)
    v = maps(2, 5, 2, 3, seed=1)[0]
    want = torch.zeros_like(v).flatten(2)
    for n in range(2):
        query, key, value = (x[n].flatten(1) for x in (q, k, v))
        for i in range(6):
            scores = torch.stack([query[:, i] @ key[:, j] for j in range(6)])
            share = (scores / 3**0.5).softmax(0)
            want[n, :, i] = sum(share[j] * value[:, j] for j in range(6))
    got = cross_attention(q, k, v)
    torch.testing.assert_close(got, want.view(v.shape))


def test_cross_attention_keeps_no_matrix():
    """A fused kernel runs: a matrix of (HW)^2 elements would take 4 MB."""
    kept = []
    q, k = (x.requires_grad_() for x in maps(1, 2, 32, 32))
    v = maps(1, 4, 32, 32)[0].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.nbytes) or x, lambda x: x
    ):
        cross_attention(q, k, v).sum().backward()
    assert 0 < max(kept) <= 4 * 32 * 32 * 4


def test_masks_by_hand():
    # Two channels, two positions; ln 3 is the logit of 3/4.
    fused = math.log(3) * torch.tensor([[[[1.0, 3.0]], [[0.0, -2.0]]]])
    units = torch.tensor([[0.5], [-1.0]])
    channel = channel_masks(fused, units)
    # Means 2 and -1: 3 / 4 and 1 / (1 + sqrt 3); 1 / 10 and 3 / 4.
    want = torch.tensor([[[0.75, 1 / (1 + 3**0.5)], [0.1, 0.75]]])
    torch.testing.assert_close(channel, want)
    spatial = spatial_masks(fused, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    want = torch.tensor([[[0.75, 0.75], [0.5, 0.1]]])
    torch.testing.assert_close(spatial, want)


def test_a_factor_on_a_mask_does_not_change_the_masked_mean():
    values = torch.tensor([[1.0, 5.0]])
    masks = torch.tensor([[[0.25, 0.75], [1.0, 0.0]]])
    # (1/4 * 1 + 3/4 * 5) and 1.
    assert masked_mean(values, masks).item() == 2.5
    smaller = masks * torch.tensor([[[0.01], [0.5]]])
    torch.testing.assert_close(masked_mean(values, smaller), torch.tensor(2.5))


def test_dice_overlap_by_hand():
    a, b, c = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]
    overlap = dice_overlap(torch.tensor([[a, b], [a, a]]))
    assert overlap.item() == 0.5  # 0 in one image, 1 in the other
    # a.b = 0; a.c and b.c: 2 / (1 + 2).
    overlap = dice_overlap(torch.tensor([[a, b, c]]))
    assert overlap.item() == pytest.approx(4 / 9)


def test_weights_of_positions_have_mean_one():
    logits = 5 * maps(3, 4, 5)
    weights = position_weights(logits)
    torch.testing.assert_close(weights.mean((2, 3)), torch.ones(2, 3))
    p = weights.flatten(2) / 20
    want = (p * (p * 20).log()).sum(-1).mean()
    torch.testing.assert_close(divergence_from_equal(logits), want)
    assert divergence_from_equal(torch.ones(1, 2, 3, 3)).abs() < 1e-6


def test_steering_adds_a_gradient_and_no_value():
    x = torch.tensor(3.0, requires_grad=True)
    loss = steer(x**2, 5 * x)
    assert loss.item() == 9
    loss.backward()
    assert x.grad.item() == 2 * 3 + 9 * 5


def test_mgd_equals_the_formula():
    s, t = maps(2, 4, 6, 5)
    loss = build(dict(type='MGDLoss', ratio=0.4))
    torch.manual_seed(3)
    got = loss(s, t)
    torch.manual_seed(3)
    kept = torch.rand(2, 1, 6, 5) >= 0.4
    first, _, last = loss.generator
    conv = torch.nn.functional.conv2d
    hidden = conv(s * kept, first.weight, first.bias, padding=1).relu()
    made = conv(hidden, last.weight, last.bias, padding=1)
    torch.testing.assert_close(got, ((made - t) ** 2).mean())
    assert not torch.equal(loss(s, t), got)  # each call drops other positions


def test_acam_equals_the_formula():
    s, t = maps(2, 4, 3, 2)
    loss = build(dict(type='ACAMLoss', num_masks=3))
    conv = torch.nn.functional.conv2d
    query, key, value = (
        conv(x, layer.weight, layer.bias).flatten(2)
        for x, layer in ((t, loss.query), (s, loss.key), (s, loss.value))
    )
    assert query.shape[1] == 2  # half the channels
    share = (query.mT @ key / 2**0.5).softmax(-1)
    fused = value @ share.mT
    square = ((t - s) ** 2).flatten(2)
    want = 0.0
    for n in range(2):
        for m in range(3):
            channel = (loss.channel_units[m] * fused[n].mean(1)).sigmoid()
            want += (channel * square[n].mean(1)).sum() / channel.sum() / 6
            spatial = (loss.spatial_units[m] @ fused[n]).sigmoid()
            want += (spatial * square[n].mean(0)).sum() / spatial.sum() / 6
    torch.testing.assert_close(loss(s, t), want)


def test_acam_masks_descend_log_loss_and_overlap():
    s, t = maps(2, 4, 3, 2)
    loss = build(dict(type='ACAMLoss', num_masks=3))
    parameters = list(loss.parameters())
    value = loss(s, t)
    got = torch.autograd.grad(value, parameters)
    channel, spatial = loss.masks(s, t)
    square = (t - s) ** 2
    mean = masked_mean(square.mean((2, 3)), channel)
    mean = mean + masked_mean(square.mean(1).flatten(1), spatial)
    overlap = dice_overlap(channel) + dice_overlap(spatial)
    want = torch.autograd.grad(mean.log() + overlap, parameters)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, value.detach() * b)


def test_residual_starts_as_the_mean_squared_error():
    s, t = maps(2, 4, 6, 5)
    loss = build(dict(type='ResidualLoss'))
    torch.testing.assert_close(loss(s, t), ((t - s) ** 2).mean())
    torch.nn.init.normal_(loss.network[-1].weight)
    weights = position_weights(loss.network(torch.cat([t, s], 1)))
    want = (weights * (t - s) ** 2).mean()
    torch.testing.assert_close(loss(s, t), want)
    assert not torch.isclose(want, ((t - s) ** 2).mean())


def test_residual_weights_rest_where_the_docstring_says():
    square = maps(3, 4, 5).double() ** 2
    loss = square.mean()
    for _ in range(200):  # the fixed point: the weights depend on the loss
        loss = (position_weights(-square / loss) * square).mean()
    logits = (-square / loss).requires_grad_()
    value = (position_weights(logits) * square).mean()
    steer(value, divergence_from_equal(logits)).backward()
    assert logits.grad.abs().max() < 1e-9
    assert (
        0 < value < square.mean()
    )  # the weights neither collapsed nor stayed equal


@pytest.mark.parametrize('cfg', TRAINABLE[1:], ids=lambda x: x['type'])
def test_the_student_gets_no_gradient_through_the_weights(cfg):
    s, t = maps(2, 4, 3, 2)
    loss = build(cfg)
    for parameter in loss.parameters():
        torch.nn.init.normal_(parameter)
    (got,) = torch.autograd.grad(loss(s.requires_grad_(), t), s)
    # Of sum(w (t - s)^2) with fixed w: half of (s - t) * gradient sums up
    # to the value, and no element moves away from the teacher.
    share = (s - t).detach() * got / 2
    assert (share >= 0).all()
    torch.testing.assert_close(share.sum(), loss(s, t).detach())


@every_loss
def test_equal_features_give_no_gradient(cfg):
    s = maps(2, 4, 3, 2)[0].requires_grad_()
    channels = dict(channels=4) if cfg in TRAINABLE else {}
    loss = MODELS.build(dict(channels, **cfg))(s, s.detach().clone())
    (gradient,) = torch.autograd.grad(loss, s)
    if cfg['type'] == 'MGDLoss':  # its generator changes the features
        assert loss > 0
    else:
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert gradient.abs().max() < 1e-6


def feature_head(**cfg):
    model = detector()
    return bound(dict(type='FeatureKDHead', **cfg), model, model)


@trainable
def test_heads_build_one_loss_per_level_with_the_teachers_channels(cfg):
    head = feature_head(
        student_channels=2, teacher_channels=[4, 6], strides=[8, 16], loss=cfg
    )
    s = [torch.randn(1, 2, n, n) for n in (8, 4)]
    t = [torch.randn(1, c, n, n) for c, n in ((4, 8), (6, 4))]
    head(recorded(None, s), [recorded(None, t)]).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
    assert {name.split('.')[0] for name in head.state_dict()} == {
        'connectors',
        'losses',
    }


def test_the_loss_is_the_mean_over_levels():
    loss = dict(type='AttentionTransferLoss')
    head = feature_head(student_channels=3, strides=[8, 16], loss=loss)
    s, t = ([torch.randn(1, 3, n, n) for n in (8, 4)] for _ in 'st')
    want = sum(attention_transfer(*pair) for pair in zip(s, t)) / 2
    torch.testing.assert_close(
        head(recorded(None, s), [recorded(None, t)]), want
    )


@every_loss
def test_losses_run_in_single_precision_under_autocast(cfg):
    head = feature_head(student_channels=4, strides=[8], loss=cfg)
    s, t = ([recorded(None, torch.randn(2, 4, 8, 8))] for _ in 'st')
    torch.manual_seed(1)
    want = head(s[0], t)
    torch.manual_seed(1)
    with torch.autocast('cpu', torch.bfloat16):
        got = head(s[0], t)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    'loss, message',
    [
        (dict(type='MGDLoss', ratio=1.0), r'ratio must be in \[0, 1\), got 1'),
        (dict(type='MGDLoss', ratio=-0.1), 'the fraction of positions'),
        (dict(type='ACAMLoss', num_masks=1), 'at least 2, got 1; the masks'),
        (
            dict(type='ACAMLoss', num_masks=2.0),
            'an integer of at least 2, got',
        ),
    ],
)
def test_bad_losses(loss, message):
    cfg = dict(type='FeatureKDHead', student_channels=4, loss=loss)
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_the_head_passes_the_channels():
    cfg = dict(type='FeatureKDHead', student_channels=4)
    loss = dict(type='ResidualLoss', channels=8)
    with pytest.raises(TypeError, match="keyword argument 'channels'"):
        MODELS.build(dict(cfg, loss=loss))


@every_loss
def test_gor_steps_are_the_same_with_the_same_seed(cfg, teacher_spec):
    head = dict(
        type='FeatureKDHead',
        student_channels=16,
        teacher_channels=24,
        loss=cfg,
    )
    model_cfg = retinanet_cfg()
    model_cfg.update(
        type='GoRDetector',
        detector='RetinaNet',
        teachers=dict(big=teacher_spec),
        kd_heads=dict(neck=head),
        gor_weighting=dict(type='GoRWeighting'),
    )
    seen = []
    for _ in range(2):
        torch.manual_seed(0)
        model = MODELS.build(model_cfg)
        model.init_weights()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            losses = model(**make_batch(), mode='loss')
            loss, shown = model.parse_losses(losses)
            loss.backward()
            optimizer.step()
        seen.append(shown['loss_kd_neck'].item())
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert missing == []
    assert seen[0] == seen[1] > 0
    stripped = strip_training_keys(model.state_dict())
    assert not any('losses' in key for key in stripped)
