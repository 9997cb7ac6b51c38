"""Tiny teachers, detectors and recorded outputs for tests of KD heads."""

from types import SimpleNamespace

import torch

from mmgor.distillation import Recorded, Teachers
from mmgor.distillation.heads.logits import flatten_anchors
from mmgor.distillation.losses.class_kl import bernoulli_kl
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg

CPU = torch.device('cpu')
LOGITS = dict(type='LogitKDHead')
SCORES = dict(type='ScoreKDHead')


def one_teacher(**spec):
    return Teachers(dict(big=spec))


def outputs_of(teacher, *taps, batch=None):
    """Tap -> what a built teacher recorded for the batch of
    :func:`make_batch`, or for another one."""
    batch = batch or make_batch()
    return teacher.forward_taps(
        batch['inputs'],
        teacher.model.data_preprocessor,
        batch['data_samples'],
        taps,
    )


def detector(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(retinanet_cfg(**kwargs))


def bound(cfg, student, *teachers):
    """A KD head bound to its teachers, named 'big', or 'big0', 'big1' and so
    on. They have the student's classes in the same order."""
    names = ['big']
    if len(teachers) > 1:
        names = [f'big{i}' for i in range(len(teachers))]
    head = MODELS.build(dict(teacher=names, **cfg))
    head.bind(
        student,
        [
            SimpleNamespace(name=name, model=teacher)
            for name, teacher in zip(names, teachers)
        ],
    )
    if head.reads_classes:
        classes = list(range(student.bbox_head.num_classes))
        head.map_classes([classes] * len(teachers))
    return head


def recorded(module, output, side=64, samples=(), size=None):
    return Recorded(module, output, size or (side, side), list(samples))


def record(model, path='bbox_head', side=64):
    """The output of a tapped module for the batch of :func:`make_batch`."""
    batch = make_batch(side=side)
    features = model.extract_feat(batch['inputs'])
    output = features if path == 'neck' else model.bbox_head(features)
    module = model.get_submodule(path)
    return recorded(module, output, side, batch['data_samples'])


def flat(levels, classes=3):
    """Class logits of all anchors of all levels: (N, anchors, classes)."""
    return torch.cat([flatten_anchors(x, classes) for x in levels], 1)


def binary_kd(s, t):
    """Reference loss of sigmoid heads: KL weighted by the largest score."""
    weight = t.sigmoid().amax(-1)
    return (bernoulli_kl(s, t).sum(-1) * weight).sum() / weight.sum()
