"""Balancers on the virtual CUDA device."""

import pytest
import torch

from mmgor.registry import MODELS
from mmgor.weighting import BaseWeighting
from mmgor.weighting.gor import FORMS
from tests.support.device_steps import by_file
from tests.support.virtual_cuda import virtual_cuda

WEIGHTINGS = [
    dict(type=name)
    for name, kind in MODELS.module_dict.items()
    if isinstance(kind, type) and issubclass(kind, BaseWeighting)
] + [dict(type='GoRWeighting', form=f) for f in list(FORMS)[1:]]


@pytest.mark.parametrize('cfg', WEIGHTINGS, ids=lambda cfg: str(cfg))
def test_weightings(cfg):
    """The host waits once per measurement, to see whether it is finite."""
    with virtual_cuda() as device:
        weighting = MODELS.build(cfg).train().to('cuda')
        x = torch.ones(4, requires_grad=True, device='cuda')
        device.waits.clear()
        for _ in range(3):
            shared = x * 2
            task = dict(loss_cls=shared.square().mean())
            kd = dict(loss_kd_a=shared.abs().mean())
            out = weighting(task, kd, [shared])
            sum(v for k, v in out.items() if 'loss' in k).backward()
        waits = by_file(device.waits)
        counted = waits.pop('weighting/gor.py', 0)
        assert counted == (3 if cfg.get('form') == 'gradient' else 0)
        measured = {'weighting/gradients.py': 3}
        assert waits == (measured if weighting.needs_gradients() else {})
