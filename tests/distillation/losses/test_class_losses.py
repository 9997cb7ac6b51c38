"""Every class loss: its contract, and its place in the KD heads."""

import math

import pytest
import torch

from mmgor.distillation.losses.class_kl import bernoulli_kl
from mmgor.registry import MODELS
from tests.support.kd import (
    LOGITS,
    SCORES,
    bound,
    detector,
    flat,
    record,
    recorded,
)
from tests.support.models import make_batch, retinanet_cfg

LOSSES = [
    dict(type='ForwardKL'),
    dict(type='BalancedKL'),
    dict(type='BalancedKL', favoured=1.0),
    dict(type='EntropyAwareKL'),
    dict(type='TopKKL', k=1),
    dict(type='TopKKL', k=5, over='locations'),
]
ids = [f'{x["type"]}-{i}' for i, x in enumerate(LOSSES)]
every_loss = pytest.mark.parametrize('loss', LOSSES, ids=ids)


def logits(*shape, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, *shape, generator=generator).double()


def softmax_detector():
    cfg = retinanet_cfg()
    cfg['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss')
    torch.manual_seed(0)
    return MODELS.build(cfg)


@every_loss
@pytest.mark.parametrize('kind', ['binary', 'categorical'])
def test_every_loss_is_a_divergence(loss, kind):
    module = MODELS.build(loss)
    s, t = logits(40, 5)
    mask = (torch.ones(5),) if kind == 'binary' else ()
    compare = getattr(module, kind)
    assert compare(t, t, *mask, 2.0).abs().max() < 1e-12
    value = compare(s, t, *mask, 2.0)
    assert value.shape == (40,)
    assert (value > 0).all()
    extreme = torch.full((1, 5), 90.0).double()
    extreme[:, 0] = -90.0
    assert compare(extreme, -extreme, *mask, 1.0).isfinite().all()


@every_loss
@pytest.mark.parametrize('kind', ['binary', 'categorical'])
def test_gradients_of_every_loss(loss, kind):
    s, t = logits(4, 3, seed=1, scale=1.0)
    mask = (torch.tensor([1.0, 0.0, 1.0]),) if kind == 'binary' else ()
    compare = getattr(MODELS.build(loss), kind)
    assert torch.autograd.gradcheck(
        lambda x: compare(x, t, *mask, 2.0), s.requires_grad_()
    )


@every_loss
def test_classes_unknown_to_the_teacher_do_not_count(loss):
    s, t = logits(10, 4)
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    module = MODELS.build(loss)
    got = module.binary(s, t, mask, 1.0)
    known = [0, 2, 3]
    want = module.binary(s[:, known], t[:, known], torch.ones(3), 1.0)
    torch.testing.assert_close(got, want)


def binary_reference(loss, s, t):
    """Independent reference: the losses computed from probabilities."""
    p, q = t.sigmoid(), s.sigmoid()

    def kl(a, b):
        return a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()

    def entropy(a):
        return -a * a.log() - (1 - a) * (1 - a).log()

    forward, reverse = kl(p, q), kl(q, p)
    if loss['type'] == 'BalancedKL':
        f = loss.get('favoured', 2 / 3)
        share = torch.where(entropy(q) > entropy(p), 1 - f, f)
        return share * forward + (1 - share) * reverse
    if loss['type'] == 'EntropyAwareKL':
        high = entropy(p) > 0.5 * math.log(2)
        return torch.where(high, reverse + forward, reverse)
    if loss == dict(type='TopKKL', k=1):
        return torch.where(p == p.amax(-1, keepdim=True), forward, 0.0)
    return forward


@every_loss
def test_binary_losses_equal_the_formulas(loss):
    s, t = logits(30, 4, scale=2.0)
    got = MODELS.build(loss).binary(s, t, torch.ones(4), 1.0)
    torch.testing.assert_close(got, binary_reference(loss, s, t).sum(-1))


def test_softmax_losses_equal_the_formulas():
    s, t = logits(30, 4, scale=2.0)
    p, q = (torch.distributions.Categorical(logits=x) for x in (t, s))
    forward = torch.distributions.kl_divergence(p, q)
    reverse = torch.distributions.kl_divergence(q, p)
    h_s, h_t = q.entropy(), p.entropy()
    got = MODELS.build(LOSSES[1]).categorical(s, t, 1.0)
    share = torch.where(h_s > h_t, 1 / 3, 2 / 3)
    torch.testing.assert_close(got, share * forward + (1 - share) * reverse)
    got = MODELS.build(LOSSES[3]).categorical(s, t, 1.0)
    high = h_t > math.log(4) / 2
    assert 0 < high.sum() < 30
    torch.testing.assert_close(got, reverse + forward * high)


def test_the_default_equals_its_formula_bit_by_bit():
    student, teacher = detector(), detector(channels=12)
    s, t = record(student), record(teacher)
    head = bound(dict(LOGITS, temperature=2.0), student, teacher)
    head.map_classes([[0, -1, 2]])
    a, b = flat(s.output[0]), flat(t.output[0])
    mask = torch.tensor([1.0, 0.0, 1.0])
    weights = (b.sigmoid() * mask).amax(-1) ** 1.0
    value = (bernoulli_kl(a, b, 2.0) * mask).sum(-1)
    want = (value * weights).sum() / weights.sum()
    assert torch.equal(head(s, [t]), want)


@every_loss
def test_softmax_heads_take_every_loss(loss):
    student = softmax_detector()
    head = bound(dict(LOGITS, loss=loss), student, student)
    s, t = ([torch.randn(2, 36, 1, 2) for _ in range(5)] for _ in 'st')
    a, b = flat(s, 4), flat(t, 4)
    scores = b.softmax(-1)[..., :3].amax(-1)
    module = MODELS.build(loss)
    weights = scores.clone()
    if loss.get('over') == 'locations':
        for row in weights:
            row[row < row.sort().values[-5]] = 0
    want = (module.categorical(a, b, 1.0) * weights).sum() / weights.sum()
    module = student.bbox_head
    got = head(recorded(module, (s,)), [recorded(module, (t,))])
    torch.testing.assert_close(got, want)


@pytest.fixture(scope='module')
def models():
    return detector(), detector(channels=12), detector(channels=4)


@pytest.mark.parametrize('cfg', [LOGITS, SCORES])
@every_loss
def test_heads_take_every_loss_from_one_and_two_teachers(cfg, loss, models):
    student, one, two = models
    s, *teachers = (record(model) for model in models)
    head = bound(dict(cfg, loss=loss, loss_weight=2.0), student, one)
    value = head(s, teachers[:1])
    assert value.item() > 0
    assert head(teachers[0], teachers[:1]).item() == pytest.approx(0, abs=1e-6)
    cfg = dict(cfg, loss=loss, fusion='learned', loss_weight=2.0)
    both = bound(cfg, student, one, two)
    (gradient,) = torch.autograd.grad(both(s, teachers), both.fusion.logits)
    assert gradient.isfinite().all()
    torch.testing.assert_close(both.teacher_losses['big0'], value)


@pytest.mark.parametrize(
    'loss, message',
    [
        (dict(type='BalancedKL', favoured=0.4), r'favoured must be in \[0.5'),
        (dict(type='BalancedKL', favoured=1.1), 'got 1.1; 0.5 weighs both'),
        (dict(type='EntropyAwareKL', threshold=-1), 'threshold must be in'),
        (dict(type='EntropyAwareKL', threshold=2), r'\[0, 1\], got 2'),
        (dict(type='TopKKL', k=0), 'k must be an integer of at least 1, got'),
        (dict(type='TopKKL', k=1.5), 'at least 1, got 1.5'),
        (dict(type='TopKKL', k=1, over='boxes'), "unknown over 'boxes'"),
        (dict(type='PKDLoss'), r'with one of the types .*ForwardKL'),
    ],
)
def test_bad_losses(loss, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(LOGITS, loss=loss))


def student_of(teacher, **cfg):
    torch.manual_seed(0)
    student = retinanet_cfg()
    student.update(type='GoRDetector', detector='RetinaNet', **cfg)
    student.update(teachers=dict(big=teacher))
    model = MODELS.build(student)
    model.init_weights()
    model.map_classes(None)
    return model


def step(model):
    """Run forward and backward once; return the logged values."""
    total, shown = model.parse_losses(model(**make_batch(), mode='loss'))
    total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    # DDP would wait forever for a gradient that is None.
    assert all(p.grad is not None for p in trained)
    assert all(p.grad.isfinite().all() for p in trained)
    return shown


@every_loss
def test_one_gor_step(loss, teacher_spec):
    heads = dict(cls=dict(LOGITS, loss=loss))
    gor = dict(type='GoRWeighting')
    model = student_of(teacher_spec, kd_heads=heads, gor_weighting=gor)
    assert step(model)['loss_kd_cls'] > 0
