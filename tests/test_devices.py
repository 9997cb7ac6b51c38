"""Training steps mix no devices, and rarely make the host wait for one."""

import pytest
import torch

from mmgor.hooks import GoRWeightHook, NonFiniteLossHook
from tests.support.device_steps import batch_on_cuda, built, by_file, steps_of
from tests.support.models import student_cfg
from tests.support.students import STUDENTS, student_of_itself
from tests.support.virtual_cuda import virtual_cuda

# These files read from the teachers once, in the first step.
ONCE = {'distillation/heads/base.py', 'distillation/teachers/preprocessing.py'}


@pytest.mark.parametrize('name', list(STUDENTS))
@pytest.mark.slow
def test_students(name, tmp_path):
    with virtual_cuda() as device:
        model = built(student_of_itself(name, tmp_path))
        batch = batch_on_cuda(side=64)
        device.waits.clear()
        loss = steps_of(model, batch)
        assert set(by_file(device.waits)) <= ONCE
        assert torch.isfinite(loss)


@pytest.mark.gpu
@pytest.mark.parametrize('amp', [False, True])
def test_a_student_trains_on_a_gpu(amp, teacher_spec):
    """One step on a real device."""
    model = built(student_cfg(teacher_spec))
    before = {k: v.clone() for k, v in model.named_parameters()}
    with torch.autocast('cuda', torch.bfloat16, enabled=amp):
        loss = steps_of(model, batch_on_cuda())
    assert loss.device.type == 'cuda' and torch.isfinite(loss)
    moved = [k for k, v in model.named_parameters() if (v != before[k]).any()]
    assert 'backbone.conv1.weight' in moved and len(moved) > 50


def test_hooks(teacher_spec):
    """The host waits twice per step for NonFiniteLossHook, which also brings
    to it what GoRWeightHook looks at; once when its training starts, and once
    per measured gradient."""
    hooks = [NonFiniteLossHook(), GoRWeightHook(gradient_interval=1)]
    with virtual_cuda() as device:
        model = built(student_cfg(teacher_spec))
        batch = batch_on_cuda()
        steps_of(model, batch, hooks)
        device.waits.clear()
        steps_of(model, batch, hooks, steps=5)
        assert by_file(device.waits) == {
            'hooks/broken_state.py': 1,
            'hooks/nonfinite_loss_hook.py': 10,
            'weighting/gradients.py': 5,
        }
