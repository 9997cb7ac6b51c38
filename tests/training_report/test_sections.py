"""What the tables of losses and teachers say, against hand-made logs."""

import math

import pytest

from mmgor.io.training_log import TrainingLog
from mmgor.training_report.run_files import Taught
from mmgor.training_report.sections import (
    accuracy_section,
    loss_section,
    source_rows,
    teacher_rows,
    weight_section,
)
from mmgor.training_report.summary import accuracy_cards
from tests.support.pages import Page

TAUGHT = Taught(dict(x='x.pth', y='y.pth'), dict(cls=['x', 'y'], neck=['x']))


def record(step, **values):
    default = dict(
        gor_w_task=1.0,
        gor_raw_task=2.0,
        gor_w_kd=3.0,
        gor_raw_kd=1.0,
        loss_kd_cls=0.5,
        loss_kd_neck=1.5,
    )
    return {'loss': 4.0, 'step': step} | default | values


def test_shares_of_labels_and_kd_heads():
    # Sums: 2 + 2 and 2 + 6. The third is left out.
    records = [
        record(1),
        record(2, loss_kd_neck=5.5),
        record(3, loss_kd_cls=math.nan),
    ]
    assert source_rows(records, TAUGHT) == [
        ['the labels (task losses)', '2', '2', '37.5%'],
        ['KD head cls, from x, y', '0.5', '0.5', '9.4%'],
        ['KD head neck, from x', '1.5', '5.5', '53.1%'],
    ]


def test_weights_and_losses_of_teachers():
    records = [
        record(i, gor_w_kd_x=float(i), gor_raw_kd_x=1 / i, gor_w_kd_y=0.5)
        for i in range(1, 21)
    ]
    # Means over the first and last two of twenty.
    x, y = teacher_rows(records, TAUGHT)
    assert x == ['x', '1.5', '19.5', '0.75', '0.05132', 'x.pth']
    assert y == ['y', '0.5', '0.5', '-', '-', 'y.pth']
    page = weight_section(TrainingLog(records, [], 'epoch'), TAUGHT)
    assert 'fused before they are compared' in page


def test_a_single_teacher_has_the_weight_of_the_distillation():
    alone = Taught(dict(big='b.pth'), {})
    rows = teacher_rows([record(1), record(2)], alone)
    assert rows == [['big', '3', '3', '1', '1', 'b.pth']]


def test_best_and_last_map():
    maps = [0.1, 0.3, -1.0, 0.2]
    log = TrainingLog(
        [],
        [
            {'coco/bbox_mAP': value, 'coco/bbox_mAP_s': -1.0, 'step': step}
            for step, value in enumerate(maps, 1)
        ],
        'epoch',
    )
    best, last = accuracy_cards(log)
    assert best == ('Best mAP', '30.0 %', 'at epoch 2, coco/bbox_mAP')
    assert last == ('Last mAP', '20.0 %', 'at epoch 4')
    page = Page(accuracy_section(log))
    # -1 stands for no object of this size.
    assert page.texts['span'] == ['coco/bbox_mAP ']
    assert 'coco/bbox_mAP: 30 at 2' in page.texts['title']


@pytest.mark.parametrize(
    'log, make, why',
    [
        (
            TrainingLog([], [], 'epoch'),
            accuracy_section,
            'No training iteration is in the log',
        ),
        (
            TrainingLog([], [], 'epoch'),
            loss_section,
            'No training iteration is in the log',
        ),
        (
            TrainingLog([record(1)], [dict(step=1)], 'epoch'),
            accuracy_section,
            'No evaluation with an mAP',
        ),
        (
            TrainingLog([dict(loss=1.0, step=1)], [], 'epoch'),
            lambda log: weight_section(log, Taught({}, {})),
            'had no teacher',
        ),
    ],
)
def test_what_is_missing_is_said(log, make, why):
    (sentence,) = Page(make(log)).texts['li']
    assert why in sentence
