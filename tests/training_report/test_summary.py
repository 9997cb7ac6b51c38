"""The sentences at the top of the page."""

import pytest
from mmengine.config import Config

from mmgor.io.training_log import TrainingLog
from mmgor.registry import MODELS
from mmgor.training_report.summary import model_cards, model_name, story
from tests.support.models import quantized_cfg, retinanet_cfg

NO_LOG = TrainingLog([], [], 'epoch')


def config(**values):
    model = dict(
        type='GoRDetector',
        detector='ATSS',
        backbone=dict(type='QuantBackbone', backbone='ResNet', depth=18),
        teachers=dict(big=dict(config='b.py', checkpoint='b.pth')),
    )
    return Config(dict(dict(model=model), **values))


def test_from_what_on_what_and_from_whom():
    train = dict(data_root='data/cells', ann_file='train.json')
    text = story(
        config(
            load_from='float.pth',
            train_dataloader=dict(dataset=dict(dataset=train)),
            val_dataloader=dict(dataset=dict(ann_file='data/eval.json')),
        ),
        NO_LOG,
        None,
    )
    assert text == [
        'A detector was trained: ATSS (ResNet-18).',
        'It started from the weights of float.pth.',
        'Training images: those of data/cells/train.json.',
        'Evaluation images: those of data/eval.json.',
        'It learned from the teacher big (b.pth).',
    ]


def test_without_teacher_and_weights():
    cfg = Config(dict(model=dict(type='FCOS'), resume=True))
    text = story(cfg, NO_LOG, None)
    assert 'initial weights, or from the checkpoint that it' in text[1]
    assert text[-1] == 'It had no teacher.'


@pytest.mark.parametrize(
    'loop, epoch, expected',
    [
        (dict(max_epochs=12), 3, 'iteration 30 in epoch 3 of 12;'),
        (dict(max_iters=90), None, 'iteration 30 of 90;'),
        ({}, None, 'iteration 30;'),
    ],
)
def test_how_far_it_came(loop, epoch, expected):
    last = dict(step=30, loss=1.0, time=0.5)
    if epoch:
        last['epoch'] = epoch
    first = dict(last, step=10, time=8.0), dict(last, step=20)
    log = TrainingLog([*first, last], [], 'epoch')
    text = story(config(train_cfg=loop), log, None)[-1]
    assert expected in text
    assert 'took 0.5 s (median)' in text


def test_bits_and_sizes_of_the_student():
    student = MODELS.build(quantized_cfg(w_bits=4, a_bits=6))
    first = story(config(), NO_LOG, student)[0]
    assert 'weights of 4 to 8 and inputs of 6 to 8 bits' in first
    cards = {name: value for name, value, _ in model_cards(student)}
    assert cards['Weights in float'] == '0.0 %'
    plain = MODELS.build(retinanet_cfg())
    assert story(config(), NO_LOG, plain)[0].endswith('(ResNet-18) in float.')
    cards = {name: value for name, value, _ in model_cards(plain)}
    assert (cards['Weights in float'], cards['Weight bits']) == (
        '100.0 %',
        '32.00',
    )


def test_names_of_models():
    backbone = dict(type='QuantBackbone', backbone='ResNet', depth=18)
    model = dict(type='GoRDetector', detector='ATSS', backbone=backbone)
    assert model_name(model) == 'ATSS (ResNet-18)'
    stock = dict(type='mmdet.YOLOX', backbone=dict(type='CSPDarknet'))
    assert model_name(stock) == 'YOLOX (CSPDarknet)'
    assert model_name(dict(type='DETR')) == 'DETR'
