"""All balancers' configs, and steps with losses of known size."""

import threading

import torch
from mmengine import dist

from mmgor.registry import MODELS

BY_LOSSES = [
    *[
        dict(type='GoRWeighting', form=form, init_iters=2)
        for form in ('ratio', 'zero_sum', 'barrier')
    ],
    dict(type='UncertaintyWeighting'),
    dict(type='RevisedUncertaintyWeighting'),
    dict(type='UWSOWeighting'),
    dict(type='DWAWeighting', interval=3),
    dict(type='RLWWeighting'),
    dict(type='GeometricMeanWeighting'),
    dict(type='FAMOWeighting'),
]
BY_GRADIENTS = [
    dict(type='GoRWeighting', form='gradient', init_iters=2),
    dict(type='GradNormWeighting'),
    dict(type='IMTLGWeighting'),
    dict(type='PCGradWeighting'),
    dict(type='CAGradWeighting'),
    dict(type='MGDAWeighting'),
]
BALANCERS = [
    dict(type='FixedWeighting', kd_weight=0.5),
    *BY_LOSSES,
    *BY_GRADIENTS,
]


def name_of(cfg):
    name = cfg['type'].removesuffix('Weighting')
    return f'{name}-{cfg["form"]}' if 'form' in cfg else name


def build(cfg):
    return MODELS.build(cfg).train()


def descend(weighting, rate=0.1):
    """Move the thetas as GoRWeightHook does when the optimizer steps."""
    if not list(weighting.parameters()):
        return
    gradient = weighting.take_gradient()
    with torch.no_grad():
        weighting.theta_task.sub_(rate * gradient[0])
        weighting.theta_kd.sub_(rate * gradient[1])


def call(weighting, task=0.5, kd=2.0, angle=(0.3, 1.0), rate=0.1):
    """Run one step with losses of these values.

    The norms of their gradients at two shared features are these values, too,
    and the cosine between the gradients is ``angle[0]``.

    Returns:
        dict: The weighting's outputs.
    """
    shared = torch.zeros(2, requires_grad=True)
    cosine = angle[0]
    toward = torch.tensor([cosine, (1 - cosine**2) ** 0.5]) * angle[1]
    out = weighting(
        dict(loss_cls=task * (1 + shared[0])),
        dict(loss_kd_a=kd * (1 + shared @ toward)),
        [shared],
    )
    descend(weighting, rate)
    return out


def weights_in(out):
    return torch.stack([out['gor_w_task'], out['gor_w_kd']])


def close(got, want, **kwargs):
    torch.testing.assert_close(got, torch.as_tensor(want), **kwargs)


def kd_share(out):
    """Share of the distillation loss in the weighted sum."""
    kd = out['loss_kd_a'].item()
    return kd / (out['loss_cls'].item() + kd)


def kd_gradient_share(out):
    """Share of the distillation gradient's norm in the sum of both norms."""
    return 1 - 1 / (1 + out['gor_grad_ratio'].item())


class TwoRanks:
    """Two threads that average tensors as two processes would."""

    def __init__(self):
        self.rank = threading.local()
        self.slots = [None, None]
        self.barrier = threading.Barrier(2, timeout=20)

    def all_reduce(self, data, op):
        assert op == 'mean'
        self.slots[self.rank.value] = data.clone()
        self.barrier.wait()
        mean = (self.slots[0] + self.slots[1]) / 2
        self.barrier.wait()
        data.copy_(mean)


def on_two_ranks(work, monkeypatch):
    """Run ``work(rank)`` in two threads, as the processes of one run.

    If one rank reduces less often than the other, the barrier breaks.
    """
    ranks, failed = TwoRanks(), []
    monkeypatch.setattr(dist, 'all_reduce', ranks.all_reduce)

    def run(rank):
        ranks.rank.value = rank
        try:
            work(rank)
        except Exception as error:
            failed.append(error)
            ranks.barrier.abort()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
