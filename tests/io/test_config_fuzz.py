"""Every setting of every registered class accepts an odd value or refuses it
with the setting's name."""

from inspect import Parameter, isclass, signature

import pytest
import torch
from mmdet.models.detectors import BaseDetector

from mmgor.detectors.builders import build_kd_heads, build_weighting
from mmgor.distillation import Teachers
from mmgor.registry import HOOKS, MODELS
from tests.support.models import student_cfg

NAN, INF = float('nan'), float('inf')
ODD = [
    '4',
    '',
    b'x',
    None,
    -1,
    0,
    2.5,
    NAN,
    INF,
    [],
    (),
    {},
    [None],
    dict(type=None),
    True,
    object,
    torch.zeros(2),
]
#: Arguments that a class requires.
NEEDED = dict(bits=4, channels=8, k=1, student_channels=8)


def settings(kind):
    """Arguments of a class that mmgor's own constructors take."""
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith('mmgor.') and '__init__' in vars(base)
        for name, parameter in signature(base).parameters.items()
        if parameter.kind
        in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }


def own_classes():
    for registry in (MODELS, HOOKS):
        for name, kind in sorted(registry.module_dict.items()):
            if kind.__module__.startswith('mmgor.') and isclass(kind):
                yield pytest.param(registry, kind, id=name)


def is_clear(name, build, *args, **kwargs):
    """The values are accepted, or the message has the setting's name."""
    try:
        build(*args, **kwargs)
    except (TypeError, ValueError) as error:
        assert name in str(error), f'{type(error).__name__}: {error}'


@pytest.mark.parametrize('registry, kind', own_classes())
def test_odd_values(registry, kind):
    names = settings(kind)
    if issubclass(kind, BaseDetector):
        return  # their stock arguments are mmdet's
    given = {k: v for k, v in NEEDED.items() if k in names}
    for name in names:
        for value in ODD:
            # Some quantizers are for inputs only, which the policy knows.
            if name != 'for_weight' or value is not True:
                cfg = dict(given, type=kind) | {name: value}
                is_clear(name, registry.build, cfg)


@pytest.mark.parametrize('value', ODD, ids=lambda v: repr(v)[:12])
def test_odd_values_of_parts(value):
    for key in (
        'checkpoint',
        'classes',
        'dtype',
        'channels_last',
        'offload',
        'cache',
    ):
        spec = dict(config='a.py', checkpoint='a.pth') | {key: value}
        is_clear(key, Teachers, dict(big=spec))
    is_clear('big', Teachers, dict(big=value))
    is_clear('teacher', Teachers, value)
    is_clear('kd_heads', build_kd_heads, value)
    is_clear('kd_heads', build_kd_heads, dict(cls=value))
    is_clear('kd_heads', build_kd_heads, dict(cls=dict(type=value)))
    is_clear('gor_weighting', build_weighting, value)
    is_clear('gor_weighting', build_weighting, dict(type=value))


@pytest.mark.parametrize('value', ODD, ids=lambda v: repr(v)[:12])
def test_odd_values_of_wrappers(value):
    stock = dict(in_channels=[4], out_channels=4, num_outs=1)
    neck = dict(type='QuantNeck', neck='FPN', **stock)
    is_clear('neck', MODELS.build, dict(neck, neck=value))
    is_clear(
        'backbone', MODELS.build, dict(type='QuantBackbone', backbone=value)
    )
    is_clear('head', MODELS.build, dict(type='QuantHead', head=value))
    is_clear(
        'detector', MODELS.build, dict(type='GoRDetector', detector=value)
    )
    is_clear('quant', MODELS.build, dict(neck, quant=value))
    for key in (
        'w_bits',
        'a_bits',
        'first_last_bits',
        'weight_quantizer',
        'input_quantizer',
        'per_channel',
        'per_channel_depthwise',
        'overrides',
    ):
        is_clear(key, MODELS.build, dict(neck, quant={key: value}))
    for overrides in ({'*': value}, {'*': dict(w_bits=value)}):
        quant = dict(overrides=overrides)
        is_clear('overrides', MODELS.build, dict(neck, quant=quant))


@pytest.mark.parametrize('value', [3, None, '', [], 'nek', torch.zeros(2)])
def test_odd_taps_of_a_student(teacher_spec, value):
    cfg = student_cfg(teacher_spec, gradient_tap=value)
    with pytest.raises(ValueError, match='gradient_tap'):
        MODELS.build(cfg)


def neck(**changes):
    return dict(neck=dict(type='QuantNeck', neck='FPN') | changes)


def heads(**head):
    return dict(kd_heads=dict(cls=head))


@pytest.mark.parametrize(
    'change, near',
    [
        (dict(gradient_tab='neck'), 'gradient_tap'),
        (heads(type='LogitKDHead', temprature=2), 'temperature'),
        (heads(type='LogitKDHeed'), 'LogitKDHead'),
        (heads(type='ScoreKDHead', fusion='means'), 'mean'),
        (heads(type='LogitKDHead', loss=dict(type='TopKL', k=1)), 'TopKKL'),
        (
            heads(
                type='FeatureKDHead',
                student_channels=16,
                loss=dict(type='CWDLoss', temperatur=1),
            ),
            'temperature',
        ),
        (
            dict(gor_weighting=dict(type='DWAWeighting', intervall=3)),
            'interval',
        ),
        (dict(gor_weighting=dict(type='GorWeighting')), 'GoRWeighting'),
        (neck(quent={}), 'quant'),
        (neck(neck='FPNN'), 'FPN'),
        (neck(quant=dict(w_bit=4)), 'w_bits'),
        (neck(quant=dict(overrides={'*': dict(wbits=4)})), 'w_bits'),
        (
            neck(quant=dict(input_quantizer=dict(type='LSQQuantiser'))),
            'LSQQuantizer',
        ),
    ],
)
def test_the_nearest_name_is_suggested(teacher_spec, change, near):
    with pytest.raises((TypeError, ValueError), match=f"mean '{near}'"):
        MODELS.build(student_cfg(teacher_spec, **change))


def test_a_typo_of_a_teacher(teacher_spec):
    teacher = dict(teacher_spec, channel_last=True)
    with pytest.raises(ValueError, match="did you mean 'channels_last'"):
        MODELS.build(student_cfg(teacher))
