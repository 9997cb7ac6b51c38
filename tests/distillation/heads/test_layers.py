"""The KD head that compares what every layer reads."""

import copy

import pytest
import torch

from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.device_steps import with_ranges
from tests.support.kd import bound, detector, float_twin
from tests.support.models import (
    make_batch,
    quantized_cfg,
    student_cfg,
)

LAYERS = dict(type='LayerKDHead')


def student_of(spec, **overrides):
    torch.manual_seed(0)
    cfg = student_cfg(spec, kd_heads=dict(layers=LAYERS), **overrides)
    student = MODELS.build(copy.deepcopy(cfg))
    student.init_weights()
    student.map_classes(None)
    return with_ranges(student).train()


def read_by(model, inputs, names):
    """Layer -> what it reads, level by level, in evaluation mode."""
    found = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: found[name].append(args[0].clone())
        )
        for name in names
    ]
    model.bbox_head(model.extract_feat(inputs))
    for handle in handles:
        handle.remove()
    return found


def test_the_loss_is_the_mean_relative_error(tmp_path):
    """Batch norm of the teacher is folded; the head runs on five levels."""
    twin, spec = float_twin(tmp_path)
    student = student_of(spec)
    batch = make_batch()
    raw = student.loss(batch['inputs'], batch['data_samples'])
    got = raw['loss_kd_layers'] / raw['gor_w_kd']
    names = [
        name
        for name in quantized_layers(student)
        if name not in ('backbone.conv1',)
    ]
    with torch.no_grad():
        mine = read_by(student, batch['inputs'], names)
        theirs = read_by(twin.eval(), batch['inputs'], names)
    shares = []
    for name in names:
        error = sum(
            ((s - t) ** 2).sum() for s, t in zip(mine[name], theirs[name])
        )
        spread = sum(
            t.var((0, 2, 3), unbiased=False).sum() * t[:, 0].numel()
            for t in theirs[name]
        )
        shares.append(error / spread)
    assert len(theirs['bbox_head.retina_cls']) == 5
    assert got.item() == pytest.approx(
        float(torch.stack(shares).mean()), rel=1e-4
    )


def test_all_layers_learn(tmp_path):
    student = student_of(float_twin(tmp_path)[1])
    batch = make_batch()
    losses = student.loss(batch['inputs'], batch['data_samples'])
    losses['loss_kd_layers'].backward()
    for name, layer in quantized_layers(student).items():
        last = name in ('bbox_head.retina_cls', 'bbox_head.retina_reg')
        untouched = layer.weight.grad is None
        assert untouched is last, name  # nothing reads what they give


def test_another_network_is_refused():
    student = MODELS.build(quantized_cfg())
    with pytest.raises(ValueError, match=r'31 of the 32 quantized layers'):
        bound(LAYERS, student, detector(channels=12, fpn=24))


def test_a_float_student_is_refused():
    with pytest.raises(ValueError, match='0 of the 0 quantized layers'):
        bound(LAYERS, detector(), detector())


def test_no_gradient_anywhere(tmp_path):
    student = student_of(float_twin(tmp_path)[1]).requires_grad_(False)
    batch = make_batch()
    with pytest.raises(ValueError, match='no layer of the student reads some'):
        student.loss(batch['inputs'], batch['data_samples'])


@pytest.mark.parametrize('side', ['student', 'teacher'])
def test_other_heads_do_not_read_it(side):
    cfg = dict(type='FeatureKDHead', student_channels=16)
    with pytest.raises(ValueError, match=f"not {side}_tap='layer_inputs'; ex"):
        MODELS.build({**cfg, f'{side}_tap': 'layer_inputs'})
