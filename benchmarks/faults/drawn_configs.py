"""Configs of toy students, drawn at random and changed at random."""

import copy
import math
import random
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.toy_student import CLASSES, STRIDES, shallow
from mmgor.registry import MODELS
from mmgor.targets import TARGETS
from tests.support.models import student_cfg

NAN, INF = math.nan, math.inf
#: What a setting gets instead of its value.
ODD = [
    *('4', '', 'none', b'x', None, True, False, object, len),
    *(-1, 0, 1, 3, 9, 2.5, 1e-30, 1e30, 10**30, NAN, INF, -INF),
    *([], (), {}, [None], [4, 4], {'a': 1}, {4}, dict(type=None)),
    *(dict(type='Conv2d'), range(3), torch.zeros(2), 1j),
]
#: Settings that nobody knows.
UNKNOWN = ['w_bit', 'extra', 'loss_wieght', 'Type', 'bits_', 'quant2']
PARTS = ('backbone', 'neck', 'bbox_head')
# Names in them are made up by the user.
_FREE = ('kd_heads', 'teachers', 'overrides')
CLASS_LOSSES = ('ForwardKL', 'TopKKL', 'BalancedKL', 'EntropyAwareKL')
FEATURE_LOSSES = (
    *('PKDLoss', 'CWDLoss', 'FeatureMSELoss', 'AttentionTransferLoss'),
    *('MGDLoss', 'ACAMLoss', 'ResidualLoss'),
)
QUANTIZERS = (
    *('LSQQuantizer', 'LSQPlusQuantizer', 'PACTQuantizer'),
    *('DoReFaQuantizer', 'MinMaxQuantizer'),
)
FUSIONS = ('mean', 'confidence', 'learned')
Place = tuple[Any, ...]


def draw_config(rng: random.Random, teacher: dict) -> dict[str, Any]:
    """Settings that train: ``model`` and ``custom_hooks``.

    Args:
        rng (Random): Draws them.
        teacher (dict): From :func:`save_teacher`.
    """
    heads, names = draw_heads(rng), ['big']
    if rng.random() < 0.2:  # two teachers, of which one is both
        names.append('other')
        heads = dict(cls=heads['cls'], score=heads['score'])
        heads['cls'].update(teacher=names, fusion=rng.choice(FUSIONS))
    model = shallow(student_cfg({}))
    model.teachers = {name: draw_teacher(rng, teacher) for name in names}
    chosen = rng.sample(list(heads), rng.randint(1, 2))
    chosen = list(dict.fromkeys(['cls', *chosen])) if names[1:] else chosen
    model.kd_heads = {
        name: dict(dict(teacher='big'), **heads[name]) for name in chosen
    }
    quant = draw_quant(rng)
    for part in PARTS:
        model[part]['quant'] = copy.deepcopy(quant)
    kinds = sorted(n for n in MODELS.module_dict if n.endswith('Weighting'))
    weighting = dict(type=rng.choice([*kinds, 'GoRWeighting', 'GoRWeighting']))
    if weighting['type'] == 'GoRWeighting':
        forms = ('ratio', 'zero_sum', 'barrier', 'gradient')
        weighting.update(form=rng.choice(forms), init_iters=1)
    model.gor_weighting = weighting
    model.gradient_tap = 'neck'
    calibration = dict(
        type='QuantCalibrationHook',
        num_batches=1,
        correct_norms=True,
        compensate_weights=True,
    )
    calibration.update(rng.choice([{}, dict(loss_weighted=True)]))
    hooks = [
        calibration,
        dict(
            type='GoRWeightHook',
            theta_lr=0.1,
            gradient_interval=1,
            collapse=1e-3,
        ),
        dict(type='NonFiniteLossHook', max_consecutive=1),
    ]
    return plain(dict(model=model, custom_hooks=hooks))


def draw_teacher(rng: random.Random, teacher: dict) -> dict[str, Any]:
    """Settings of a teacher, some of those that are optional among them."""
    extras = dict(
        classes=list(CLASSES),
        dtype=rng.choice(['float32', 'bfloat16', 'auto']),
        channels_last=rng.choice([True, False, 'auto']),
        offload=rng.random() < 0.5,
        cache=dict(
            folder=str(Path(teacher['checkpoint']).parent / 'cache'),
            max_gib=0.1,
        ),
    )
    names = rng.sample(list(extras), rng.randrange(3))
    return dict(teacher, **{name: extras[name] for name in names})


def draw_quant(rng: random.Random) -> dict[str, Any]:
    """Settings of the quantization."""
    bits = range(2, 9)
    extras: dict[str, dict[str, Any]] = dict(
        edges=dict(first_last_bits=rng.choice(bits)),
        scales=dict(per_channel=rng.random() < 0.5),
        weights=dict(weight_quantizer=dict(type=rng.choice(QUANTIZERS[::4]))),
        inputs=dict(input_quantizer=dict(type=rng.choice(QUANTIZERS))),
        tensors=dict(tensors=rng.choice(['inputs', 'all']), tensor_bits=8),
        overrides=dict(overrides={'*': dict(w_bits=rng.choice(bits))}),
    )
    if rng.random() < 0.15:
        extras = dict(target=dict(target=rng.choice(list(TARGETS))))
    quant = dict(w_bits=rng.choice(bits), a_bits=rng.choice(bits))
    for name in rng.sample(list(extras), min(len(extras), rng.randrange(3))):
        quant.update(extras[name])
    return quant


def draw_heads(rng: random.Random) -> dict[str, dict[str, Any]]:
    """Settings of one KD head of each type, by name."""
    known = dict(loss_weight=1.0, student_tap='bbox_head')
    classes = dict(temperature=2.0, foreground_gamma=1.0, **known)
    kind = rng.choice(CLASS_LOSSES)
    loss = dict(type=kind, **(dict(k=2) if kind == 'TopKKL' else {}))
    return dict(
        cls=dict(type='LogitKDHead', loss=loss, output_index=0, **classes),
        score=dict(type='ScoreKDHead', loss=dict(loss), **classes),
        box=dict(type='BoxKDHead', form='iou', temperature=10.0, **known),
        boxes=dict(
            type='DetectionKDHead', min_score=0.0, iou_threshold=0.5, **known
        ),
        neck=dict(
            type='FeatureKDHead',
            student_channels=16,
            teacher_channels=24,
            strides=STRIDES,
            loss=dict(type=rng.choice(FEATURE_LOSSES)),
            student_tap='neck',
            teacher_tap='neck',
            loss_weight=1.0,
        ),
    )


def plain(value: Any) -> Any:
    """A copy in dicts and lists without mmengine's classes."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(inner) for inner in value)
    return value


def places(cfg: dict[str, Any]) -> list[Place]:
    """Paths of all settings of mmgor's in a config."""
    roots: list[Place] = [('model', part, 'quant') for part in PARTS]
    for key in ('teachers', 'kd_heads', 'gor_weighting', 'gradient_tap'):
        roots.append(('model', key))
    found = [path for root in roots for path in _below(cfg, root)]
    for i, hook in enumerate(cfg['custom_hooks']):
        found += [('custom_hooks', i, key) for key in hook if key != 'type']
    return found


def _below(cfg: Any, path: Place) -> list[Place]:
    value = at(cfg, path)
    found = [path]
    # What is in a teacher's own config is not mmgor's.
    if isinstance(value, dict) and path[-1] != 'config':
        for key in value:
            found += _below(cfg, (*path, key))
    return found


def at(cfg: Any, path: Place) -> Any:
    """What a config has at a path."""
    for key in path:
        cfg = cfg[key]
    return cfg


def misspelt(rng: random.Random, word: str) -> str:
    """A word with a letter lost, doubled, swapped, added or in another case.

    It may be the same word.
    """
    i = rng.randrange(len(word))
    return rng.choice(
        [
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
            word[:i] + word[i : i + 2][::-1] + word[i + 2 :],
            word[:i] + word[i].swapcase() + word[i + 1 :],
            word + 's',
        ]
    )


class Change:
    """One change of a config, made in place.

    Args:
        rng (Random): Draws it.
        cfg (dict): From :func:`draw_config`.
        path (tuple): Where, one of :func:`places`.

    Attributes:
        what (str): Shown with a failure.
        names (set[str]): One of them must be in an error's message.
        may_train (bool): Whether the config may still be a sound one.
    """

    def __init__(
        self, rng: random.Random, cfg: dict[str, Any], path: Place
    ) -> None:
        self.owner, self.key = at(cfg, path[:-1]), path[-1]
        self.old = self.owner[self.key]
        self.free = path[-2] in _FREE
        self.names = {self.key}
        if self.free or path[1] == 'kd_heads':  # or what it is in
            self.names |= {*path[1:3]}
        self.may_train = True
        kinds = ['odd', 'odd', 'odd', 'form', 'lost', 'renamed']
        if isinstance(self.old, dict) and self.key != 'config':
            kinds += ['unknown', 'unknown']
        if isinstance(self.old, str) and self.old:
            kinds += ['misspelt', 'misspelt']
        kind = rng.choice(kinds)
        new = getattr(self, f'_{kind}')(rng)
        given = new if isinstance(new, dict) else [new]
        self.names |= {name for name in given if isinstance(name, str)}
        where = '.'.join(map(str, path))
        self.what = f'{kind} {where}: {str(self.old)[:60]!r} -> {new!r}'[:200]

    def _odd(self, rng: random.Random) -> Any:
        new = self.owner[self.key] = rng.choice(ODD)
        return new

    def _form(self, rng: random.Random) -> Any:
        old = self.old
        new = rng.choice([[old], dict(a=old), str(old), (old, old)])
        self.owner[self.key] = new
        return new

    def _lost(self, _: random.Random) -> None:
        del self.owner[self.key]

    def _renamed(self, rng: random.Random) -> str:
        new = misspelt(rng, self.key)
        self.may_train = self.free or new in self.owner or new == self.key
        self.owner[new] = self.owner.pop(self.key)
        return new

    def _misspelt(self, rng: random.Random) -> str:
        new = self.owner[self.key] = misspelt(rng, self.old)
        self.may_train = new == self.old or self.key == 'folder'
        return new

    def _unknown(self, rng: random.Random) -> str:
        new = rng.choice(UNKNOWN)
        self.old[new] = rng.choice([1, dict(w_bits=4)])
        self.may_train = False
        return new
