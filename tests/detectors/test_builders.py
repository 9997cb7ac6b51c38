"""Wrong KD heads, weightings and detectors in a student's config."""

import re

import pytest
from torch import nn

from mmgor.detectors.builders import build_kd_heads, build_weighting
from mmgor.registry import MODELS
from tests.support.models import student_cfg


@pytest.mark.parametrize('heads', [[dict(type='ScoreKDHead')], 'cls'])
def test_heads_that_are_not_a_dict(teacher_spec, heads):
    with pytest.raises(TypeError, match=r'expected kd_heads=dict\(<name>=di'):
        MODELS.build(student_cfg(teacher_spec, kd_heads=heads))


@pytest.mark.parametrize(
    'heads, key',
    [
        (dict(cls=None), 'kd_heads.cls is None'),
        (dict(type='ScoreKDHead'), "kd_heads.type is 'ScoreKDHead'"),
        (dict(cls=dict(loss_weight=2.0)), "kd_heads.cls is {'loss_weight"),
        (dict(cls=dict(type='ScorKDHead')), "kd_heads.cls is {'type': 'Sc"),
        (dict(cls=dict(type='mmdet.Scor')), "kd_heads.cls is {'type': 'mm"),
        (dict(cls=dict(type='PKDLoss')), "kd_heads.cls is {'type': 'PKDL"),
        (dict(cls=dict(type=nn.Linear)), "kd_heads.cls is {'type': <class"),
    ],
)
def test_an_entry_that_is_not_a_kd_head(heads, key):
    with pytest.raises(ValueError, match=re.escape(key)) as caught:
        build_kd_heads(heads)
    hint = 'expected kd_heads=dict(<name>=dict(type=..., ...)) with one '
    assert hint in str(caught.value)
    assert "'LogitKDHead', 'ScoreKDHead']" in str(caught.value)
    assert 'kd_heads=dict(_delete_=True, ...)' in str(caught.value)


@pytest.mark.parametrize(
    'name', ['cls.a', '', 'keys', 'type', 'forward', 'training']
)
def test_a_name_that_torch_refuses(name):
    message = rf'kd_heads.{name}: expected a name .*, got {name!r}'
    with pytest.raises(ValueError, match=message):
        build_kd_heads({name: dict(type='ScoreKDHead')})


def test_an_error_in_a_head_names_the_head():
    loss = dict(type='TopKKL', k=0)
    with pytest.raises(ValueError, match=r'^kd_heads\.a: loss: k must be'):
        build_kd_heads(dict(a=dict(type='ScoreKDHead', loss=loss)))
    with pytest.raises(TypeError, match=r"^kd_heads\.a: .*argument 'temper'"):
        build_kd_heads(dict(a=dict(type='ScoreKDHead', temper=1)))
    with pytest.raises(ValueError, match=r'^gor_weighting: alpha must be'):
        build_weighting(dict(type='GradNormWeighting', alpha=-1))


@pytest.mark.parametrize(
    'cfg', [None, 'GoRWeighting', dict(form='barrier'), dict(type='L1Loss')]
)
def test_a_config_that_is_not_a_weighting(cfg):
    message = r"^gor_weighting is .*with one of the types \[.*'GoRWeighting'"
    with pytest.raises(ValueError, match=message):
        build_weighting(cfg)


@pytest.mark.parametrize('detector', [None, 3])
def test_a_detector_that_is_not_a_name(teacher_spec, detector):
    with pytest.raises(TypeError, match=r'expected detector=<registered name'):
        MODELS.build(student_cfg(teacher_spec, detector=detector))
