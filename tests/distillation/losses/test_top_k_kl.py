"""KL divergence of the classes or locations with the largest scores."""

import math

import pytest
import torch

from mmgor.distillation.losses.class_kl import bernoulli_kl, categorical_kl
from mmgor.distillation.losses.top_k_kl import top_k_categorical_kl, top_k_mask
from mmgor.registry import MODELS
from tests.support.kd import LOGITS, bound, detector, flat, record, recorded


def logits(*shape, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, *shape, generator=generator).double()


def test_top_k_categorical_kl_by_hand():
    p = torch.tensor([0.125, 0.5, 0.125, 0.25])
    q = torch.full((4,), 0.25)
    # The top class, and 0.5 against 0.75 for the other three.
    want = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    got = top_k_categorical_kl(q.log(), p.log(), 1)
    assert got.item() == pytest.approx(want, rel=1e-5)
    # A temperature softens each of the classes before they are joined.
    p, q = ((x.log() / 2).softmax(-1) for x in (p, q))
    want = p[1] * (p[1] / q[1]).log()
    want += (1 - p[1]) * ((1 - p[1]) / (1 - q[1])).log()
    got = top_k_categorical_kl(2 * q.log(), 2 * p.log(), 1, 2.0)
    torch.testing.assert_close(got, 4 * want)


def test_joining_classes_never_increases_the_divergence():
    s, t = logits(50, 6)
    full = categorical_kl(s, t)
    values = [top_k_categorical_kl(s, t, k) for k in range(1, 7)]
    for fewer, more in zip([torch.zeros_like(full), *values], values):
        assert (fewer <= more + 1e-12).all()
    torch.testing.assert_close(values[-2], full)  # one class joins nothing
    torch.testing.assert_close(values[-1], full)
    assert (values[0] < full).all()


def test_top_k_mask():
    mask = top_k_mask(torch.tensor([[0.1, 0.9, 0.5]]), 2)
    assert mask.tolist() == [[False, True, True]]
    assert top_k_mask(torch.zeros(2, 3), 9).all()


@pytest.mark.parametrize('gamma', [0.0, 2.0])
def test_top_locations_are_those_of_each_image(gamma):
    student = detector()
    loss = dict(type='TopKKL', k=4, over='locations')
    head = bound(
        dict(LOGITS, loss=loss, foreground_gamma=gamma), student, student
    )
    torch.manual_seed(0)
    s, t = ([torch.randn(2, 27, 1, 2) for _ in range(5)] for _ in 'st')
    total = weight = 0.0
    for x, y in zip(flat(s), flat(t)):  # one image
        scores = y.sigmoid().amax(-1).tolist()
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[:4]
        for i in best:
            total += bernoulli_kl(x[i], y[i]).sum() * scores[i] ** gamma
            weight += scores[i] ** gamma
    module = student.bbox_head
    got = head(recorded(module, (s,)), [recorded(module, (t,))])
    torch.testing.assert_close(got, total / weight)


def test_k_above_the_number_of_classes():
    student = detector()
    head = bound(dict(LOGITS, loss=dict(type='TopKKL', k=4)), student, student)
    with pytest.raises(ValueError, match=r'k=4\) of a head with 3 class out'):
        head(record(student), [record(student)])
    module = MODELS.build(dict(type='TopKKL', k=4))
    with pytest.raises(ValueError, match='expected k <= 3'):
        module.categorical(torch.zeros(1, 3), torch.zeros(1, 3), 1.0)
