"""Teachers, KD heads and losses on a CUDA device: what the host waits for."""

import pytest
import torch

from mmgor.distillation import BaseKDHead
from mmgor.distillation.losses.class_kl import ForwardKL
from mmgor.registry import MODELS
from tests.support.device_steps import batch_on_cuda, built, by_file, steps_of
from tests.support.models import retinanet_cfg, student_cfg
from tests.support.virtual_cuda import virtual_cuda


def float_student(teacher, **parts):
    """A float student, which is faster; KD heads do not depend on the bits."""
    cfg = student_cfg(teacher, **parts)
    stock = retinanet_cfg()
    for part in ('backbone', 'neck', 'bbox_head'):
        cfg[part] = stock[part]  # update() would merge dicts
    return cfg


def neck_kd(loss):
    channels = dict(student_channels=16, teacher_channels=24)
    strides = [8, 16]
    return dict(type='FeatureKDHead', loss=loss, strides=strides, **channels)


FEATURE_LOSSES = [
    'PKDLoss',
    'CWDLoss',
    'FeatureMSELoss',
    'AttentionTransferLoss',
    'MGDLoss',
    'ACAMLoss',
    'ResidualLoss',
]
CLASS_LOSSES = [
    dict(type='ForwardKL'),
    dict(type='BalancedKL'),
    dict(type='EntropyAwareKL'),
    dict(type='TopKKL', k=2),
    dict(type='TopKKL', k=2, over='locations'),
]
# A student has all heads of an entry at once, each with its own loss.
KD_HEADS = dict(
    features={name: neck_kd(dict(type=name)) for name in FEATURE_LOSSES},
    classes={
        f'{head}{i}': dict(type=f'{head}KDHead', loss=loss)
        for i, loss in enumerate(CLASS_LOSSES)
        for head in ('Logit', 'Score')
    },
    boxes=dict(iou=dict(type='BoxKDHead')),
    detections=dict(found=dict(type='DetectionKDHead', min_score=0.0)),
)
TWO = dict(teacher=['big', 'other'])
FUSED = {
    kind: dict(type='ScoreKDHead', fusion=kind, **TWO)
    for kind in ('mean', 'confidence', 'learned')
}


def waits_of_second_step(cfg):
    with virtual_cuda() as device:
        model = built(cfg)
        batch = batch_on_cuda()
        steps_of(model, batch)
        device.waits.clear()
        assert torch.isfinite(steps_of(model, batch))
        return by_file(device.waits)


@pytest.mark.parametrize('kind', list(KD_HEADS))
def test_kd_heads(kind, teacher_spec):
    """The host waits once for detections: the number drawn at random decides
    which operations the student's head runs."""
    cfg = float_student(teacher_spec, kd_heads=KD_HEADS[kind])
    drawn = {'distillation/heads/detections.py': 1}
    want = drawn if kind == 'detections' else {}
    assert waits_of_second_step(cfg) == want


@pytest.mark.parametrize('offload', [False, True])
def test_several_teachers(offload, teacher_spec):
    """Boxes of two teachers are fused on the CPU: a second wait per batch."""
    other = dict(
        teacher_spec, dtype='bfloat16', channels_last=True, offload=offload
    )
    found = dict(type='DetectionKDHead', min_score=0.0, **TWO)
    cfg = float_student(
        teacher_spec,
        teachers=dict(big=teacher_spec, other=other),
        kd_heads=dict(FUSED, found=found),
    )
    waits = waits_of_second_step(cfg)
    assert waits == {'distillation/heads/detections.py': 2}


def test_every_kd_head_and_loss_is_tried():
    heads = [h for kind in KD_HEADS.values() for h in kind.values()]
    tried = {h['type'] for h in heads}
    tried |= {h['loss']['type'] for h in heads if 'loss' in h}
    bases = (BaseKDHead, ForwardKL, *map(MODELS.get, FEATURE_LOSSES))
    known = {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type)
        and (issubclass(kind, bases) or hasattr(kind, 'needs_channels'))
    }
    assert known and known <= tried
