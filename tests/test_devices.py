"""Nothing mixes devices, and hardly anything makes the host wait for one."""

import pytest
import torch

from mmgor.hooks import GoRWeightHook, NonFiniteLossHook, SharedInputHook
from tests.support.device_steps import batch_on_cuda, built, by_file, steps_of
from tests.support.models import student_cfg
from tests.support.students import STUDENTS, student_of_itself
from tests.support.virtual_cuda import virtual_cuda

# What the first step has to know of teachers, and keeps.
ONCE = {'distillation/heads/base.py', 'distillation/teachers/preprocessing.py'}


@pytest.mark.parametrize('name', list(STUDENTS))
def test_students(name, tmp_path):
    with virtual_cuda() as device:
        model = built(student_of_itself(name, tmp_path))
        batch = batch_on_cuda(side=64)
        device.waits.clear()
        loss = steps_of(model, batch)
        assert set(by_file(device.waits)) <= ONCE
        assert torch.isfinite(loss)


def test_hooks(teacher_spec):
    """NonFiniteLossHook asks once a step, GoRWeightHook after the first and
    in every fifth, and once more for each gradient that is measured."""
    hooks = [
        NonFiniteLossHook(),
        GoRWeightHook(gradient_interval=1),
        SharedInputHook(),
    ]
    with virtual_cuda() as device:
        model = built(student_cfg(teacher_spec))
        batch = batch_on_cuda()
        steps_of(model, batch, hooks)
        device.waits.clear()
        steps_of(model, batch, hooks, steps=5)
        assert by_file(device.waits) == {
            'hooks/nonfinite_loss_hook.py': 5,
            'hooks/gor_weight_hook.py': 1,
            'weighting/gradients.py': 5,
        }
