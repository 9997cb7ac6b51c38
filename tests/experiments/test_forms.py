"""experiments/forms.py: what is tried is what its docstrings say."""

import sys
from importlib import import_module

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS

from mmgor.registry import MODELS


@pytest.fixture(scope='module')
def forms():
    """The module, registered for these tests alone: others look at all that
    is registered."""
    module = import_module('experiments.forms')
    yield module
    del sys.modules[module.__name__]
    for registry in (MODELS, OPTIM_WRAPPERS, OPTIMIZERS):
        for name, kind in list(registry.module_dict.items()):
            if kind.__module__ == module.__name__:
                del registry.module_dict[name]


def test_a_stake_moves_from_the_first_to_the_last(forms):
    """With losses that stay as they are, the weighted distillation loss is
    the stake times the task loss."""
    weighting = forms.StakeWeighting(first=1, last=8, steps=40)
    task, kd = torch.tensor(0.5), torch.tensor(4.0)
    shares = []
    for _ in range(60):
        out = weighting(dict(loss=task), dict(loss_kd_a=kd))
        shares.append(float(out['loss_kd_a'] / out['loss']))
    # After k calls it is 4.5 - 3.5 cos(pi k / 40), and 8 from 40 on.
    assert shares[0] == pytest.approx(1)
    assert shares[20] == pytest.approx(4.5)
    assert shares[40] == shares[59] == pytest.approx(8)


@pytest.mark.parametrize(
    'by, width, more', [('certainty', 0.1, 0), ('disagreement', -0.1, 1)]
)
def test_places(forms, by, width, more):
    """Of two locations with a teacher's score of 0.9 and 0.6, the first is
    the one where the teacher is certain and the student disagrees."""
    head = forms.PlacedScoreKDHead(by=by, threshold=0.4, width=width)
    teacher = torch.logit(torch.tensor([[[0.9], [0.6]]]))
    student = torch.logit(torch.tensor([[[0.1], [0.5]]]))
    kept = torch.ones(1, dtype=torch.bool)
    p, q = torch.tensor([0.9, 0.6]), torch.tensor([0.1, 0.5])
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    u = (2 * p - 1).abs() if by == 'certainty' else (p - q).abs()
    w = p * torch.sigmoid((u - 0.4) / width)
    found = head._mean_kl(student, teacher, kept)
    torch.testing.assert_close(found, (w * kl).sum() / w.sum())
    assert w.argmax() == more


@pytest.mark.parametrize('max_norm', [0.1, 100.0])
def test_equal_momenta_are_adamw(forms, max_norm):
    """With one rate for both losses the steps are those of AdamW, also where
    gradients are clipped and decay differs by group."""
    torch.manual_seed(0)
    start = torch.randn(2, 3)
    targets = torch.randn(20, 2, 3)
    ends = []
    for apart in (True, False):
        parts = [torch.nn.Parameter(row.clone()) for row in start]
        groups = [
            dict(params=[part], weight_decay=decay)
            for part, decay in zip(parts, (0.5, 0.0))
        ]
        kind = forms.TwoMomentaAdamW if apart else torch.optim.AdamW
        optimizer = kind(groups, lr=0.01)
        wrapper = forms.TwoMomentaWrapper(
            optimizer, clip_grad=dict(max_norm=max_norm)
        )
        wrapper.message_hub = MessageHub('forms')
        for target in targets:
            both = torch.stack(tuple(parts))
            task = (both - target).square().sum()
            kd = 3 * (both[0] * target[0]).sin().sum()
            if apart:
                forms.ApartWeighting.last = task, kd
                wrapper.update_params(task + kd)
            else:
                (task + kd).backward()
                torch.nn.utils.clip_grad_norm_(parts, max_norm)
                optimizer.step()
                optimizer.zero_grad()
        ends.append(torch.stack(tuple(parts)).detach())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-5)
    assert (ends[0] - start).abs().min() > 0.02
