import pytest
import torch
from torch import nn

from mmgor.io.checkpoint import (
    check_any_match,
    check_dense,
    check_resume,
    check_sound,
    flatten,
    non_finite_keys,
    strip_training_keys,
    weights_checksum,
)


def test_one_matching_weight_is_enough():
    state = {'a.weight': torch.zeros(1, 2)}
    check_any_match(nn.Linear(2, 1), state, 'a.', 'model')


def test_nothing_matching_names_both_sides():
    state = {'foo': torch.zeros(3)}
    with pytest.raises(
        RuntimeError, match=r"'weight': \(1, 2\).*'foo': \(3,\)"
    ):
        check_any_match(nn.Linear(2, 1), state, '', 'model')


def test_names_without_shapes_do_not_match():
    wider = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    with pytest.raises(RuntimeError, match=r'\(8, 3, 3, 3\).*\(16, 3, 3, 3\)'):
        check_any_match(narrow, wider.state_dict(), '', 'model')


@pytest.mark.parametrize(
    'state, message',
    [
        ({'weight': torch.zeros(1, 2)}, r'1 missing \(bias\)'),
        (
            {
                'weight': torch.zeros(1, 2),
                'bias': torch.zeros(1),
                'x': torch.zeros(1),
            },
            r'1 unexpected \(x\)',
        ),
        (
            {'weight': torch.zeros(1, 3), 'bias': torch.zeros(1)},
            r'weight: \(1, 3\) instead of \(1, 2\)',
        ),
    ],
)
def test_resume_needs_every_key(state, message):
    with pytest.raises(RuntimeError, match=message):
        check_resume(nn.Linear(2, 1), state)


def test_resume_accepts_its_own():
    model = nn.Linear(2, 1)
    check_resume(model, model.state_dict())


def test_training_keys_are_stripped():
    state = {'kd_heads.a': 1, 'gor_weighting.b': 2, 'backbone.c': 3}
    assert strip_training_keys(state) == {'backbone.c': 3}


def test_keys_that_are_not_finite():
    weights = dict(
        a=torch.tensor([1.0, torch.nan]),
        b=torch.ones(2),
        c=torch.tensor(2),
        d=torch.tensor([-torch.inf], dtype=torch.float16),
    )
    assert non_finite_keys(weights) == ['a', 'd']


def test_weights_checksum():
    weights = dict(a=torch.arange(4.0), b=torch.zeros((), dtype=torch.int64))
    same = dict(b=weights['b'].clone(), a=weights['a'].clone())
    same['kd_heads.cls.weight'] = torch.ones(2)
    digest = weights_checksum(weights)
    wide = torch.arange(8.0).view(4, 2) / 2
    for strided in (wide[:, 0], torch.arange(4.0).view(4, 1)[:, 0]):
        assert weights_checksum(dict(weights, a=strided)) == digest
    assert weights_checksum(dict(a=torch.ones(1).expand(3)))
    assert len(digest) == 64 and weights_checksum(same) == digest
    others = [
        dict(weights, a=weights['a'].nextafter(torch.ones(4))),
        dict(weights, a=weights['a'].view(2, 2)),
        dict(weights, a=weights['a'].view(torch.int32)),
        dict(c=weights['a'], b=weights['b']),
    ]
    assert digest not in map(weights_checksum, others)


def test_tensors_far_larger_than_their_memory():
    one = torch.zeros(1)
    check_dense({f'level{i}.w': torch.zeros(64) for i in range(99)}, 'x')
    # The weight of a head under the name of each level, and small tensors.
    check_dense({f'{i}.w': torch.zeros(2**18) for i in range(2)}, 'x')
    shared = torch.zeros(2**18)
    check_dense({f'{i}.w': shared for i in range(16)}, 'x')
    check_dense(dict(a=one.expand(1000), b=3), 'x')
    many = {f'{i}.w': one.expand(2**10) for i in range(2**10)}
    for bomb in (dict(a=one.expand(10**11)), many):
        with pytest.raises(ValueError, match='x: 4 bytes are stored for wei'):
            check_dense(bomb, 'x')
    with pytest.raises(ValueError, match='4 bytes are stored for weights of'):
        weights_checksum(dict(a=one.expand(10**11)))


def test_wrappers_need_not_be_in_the_file():
    """Of DDP around a part, and of mmdet's semi-supervised detectors."""
    model = nn.ModuleDict(
        dict(student=nn.ModuleDict(dict(module=nn.Linear(2, 1))))
    )
    check_any_match(model, {'weight': torch.zeros(1, 2)}, '', 'model')
    with pytest.raises(RuntimeError, match='matches nothing'):
        other = {'student.weight': torch.zeros(1, 2)}
        check_any_match(nn.Linear(2, 1), other, '', 'model')


NAN, INF = torch.tensor([1.0, torch.nan]), torch.tensor([torch.inf])


@pytest.mark.parametrize(
    'key, value, fault',
    [
        ('a.weight', NAN, 'NaN or infinity'),
        ('a.running_mean', INF, 'NaN or infinity'),
        ('a.input_quantizer.clip', NAN, 'NaN or infinity'),
        (
            'a.input_quantizer.log_scale',
            torch.tensor([80.0]),
            'step sizes outside',
        ),
        (
            'a.weight_quantizer.log_scale',
            torch.tensor([1, -80.0]),
            'step sizes outside',
        ),
        (
            'a.input_quantizer.alpha',
            torch.tensor([1e30]),
            'step sizes outside',
        ),
        ('a.input_quantizer.low', torch.tensor([-1e30]), 'step sizes outside'),
        ('a.running_var', torch.tensor([1, -0.1]), 'negative variances'),
    ],
)
def test_what_would_break_a_training_is_named(key, value, fault):
    state = {'b': torch.ones(1), key: value}
    own = {name: torch.ones(1) for name in state}
    with pytest.raises(ValueError, match=rf'the file has .*{fault}.*\[.{key}'):
        check_sound(own, state, 'file')


def test_sound_state_dicts():
    mask = dict(mask=INF)  # a constant of the architecture
    check_sound(mask, dict(mask, log_scale=torch.tensor([99.0])), 'file')
    step = {'a.input_quantizer.log_scale': torch.tensor([-25.0, 18.0])}
    check_sound({}, dict(step, count=torch.tensor(3)), 'file')
    # Tensors of another shape or kind are refused when they are loaded.
    for other in (torch.zeros(0), 'text'):
        check_sound({}, {'a.input_quantizer.log_scale': other}, 'file')


def test_flatten():
    state = dict(state={0: dict(exp_avg=1)}, groups=[dict(lr=2)])
    assert flatten(state) == {'state.0.exp_avg': 1, 'groups.0.lr': 2}
