"""Chooses the KD heads that fit a student and its teachers."""

import copy
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

from mmgor.io import config_reader
from mmgor.registry import MODELS

from .checkpoints import check_file, is_url, zoo_checkpoint
from .trial import (
    FloatProbe,
    build_float,
    collate_function,
    first_step,
    float_model,
)

_FORM = 'CONFIG.py:CHECKPOINT'


@dataclass(frozen=True)
class Teaching:
    """A teacher of the command line.

    Attributes:
        name (str): Its name in the config.
        config (str): Path or 'mmdet::...' name.
        checkpoint (str): Path or URL.
    """

    name: str
    config: str
    checkpoint: str


@dataclass
class Choice:
    """KD heads, and why others do not fit.

    Attributes:
        kd_heads (dict): Name -> config.
        refused (list[str]): One sentence for each form that does not fit.
    """

    kd_heads: dict[str, dict]
    refused: list[str]


def parse_teachers(values: Sequence[str]) -> list[Teaching]:
    """Read ``--teacher`` values.

    Args:
        values (Sequence[str]): 'CONFIG.py:CHECKPOINT' each; the checkpoint of
            a config of mmdet's model zoo may be left out.

    Raises:
        FileNotFoundError: If a checkpoint does not exist.
        ValueError: If a value has another form.
    """
    found: list[Teaching] = []
    for value in values:
        match = re.fullmatch(r'(.+?\.py)(?::(.+))?', value)
        if match is None:
            raise ValueError(f'--teacher expected {_FORM}, got {value!r}.')
        config, given = match.groups()
        checkpoint = given or zoo_checkpoint(config)
        if checkpoint is None:
            raise ValueError(
                f'--teacher {value} has no checkpoint, and no model zoo has '
                f'one for this config; expected {_FORM}.'
            )
        check_file(checkpoint, f'checkpoint of --teacher {config}')
        name = _name(config, [one.name for one in found])
        found.append(Teaching(name, config, checkpoint))
    return found


def _name(config: str, taken: Sequence[str]) -> str:
    """A short name: 'mmdet::atss/atss_r101_fpn_1x_coco.py' is atss_r101."""
    stem = Path(config.rpartition('::')[2]).stem
    words = re.split(r'[_-]+', 'teacher' if stem == 'config' else stem)
    name = re.sub(r'\W', '', '_'.join(words[:2]))
    name = name if name.isidentifier() else f'teacher_{name}'
    choices = (f'{name}_{i}' if i > 1 else name for i in count(1))
    return next(one for one in choices if one not in taken)


def choose_heads(
    cfg: Any,
    specs: Mapping[str, dict],
    probe: FloatProbe,
    batch: dict,
    classes: Sequence[str] | None,
) -> Choice:
    """The KD heads that a pair can have, tried with the float detectors.

    In this order: class scores and boxes (dense heads with a stride in
    common), detections (a student with a dense head, any teacher), feature
    maps (strides in common). The first form that works is taken; docs/
    teachers.md says what each needs and what it gave.

    Args:
        cfg (Config): The float student's config.
        specs (Mapping[str, dict]): At least one, from :func:`stand_ins`.
        probe (FloatProbe): Of the float student.
        batch (dict): From :func:`.trial.noise_batch`.
        classes (Sequence[str], optional): Names of the student's classes.

    Raises:
        ValueError: If no form fits a teacher.
    """
    probes = {}
    for name, spec in specs.items():
        config = _read(name, spec['config'])
        # The student's batch may have masks, which the teacher can't take.
        collate = collate_function(config)
        _, probes[name] = first_step(build_float(config), 1, collate)
    refused: list[str] = []
    for heads in _forms(probe, probes):
        error = _misfit(cfg, specs, heads, batch, classes)
        if error is None:
            return Choice(heads, refused)
        kinds = dict.fromkeys(head['type'] for head in heads.values())
        refused.append(f'{" and ".join(kinds)}: {error}')
    reasons = '\n  '.join(refused)
    names = [spec['config'] for spec in specs.values()]
    raise ValueError(
        f'no KD head fits the student and {names}:\n  {reasons}\nExpected a '
        'teacher with a stride in common, and, for more than features, with '
        'classes in common.'
    )


@contextmanager
def stand_ins(teachers: Sequence[Teaching]) -> Iterator[dict[str, dict]]:
    """The entry ``teachers`` of trials: random weights stand for those that
    would have to be downloaded, until the block ends.

    Args:
        teachers (Sequence[Teaching]): The teachers.

    Raises:
        RuntimeError: If a teacher's config can't be read or built.
    """
    specs: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in teachers:
            checkpoint = one.checkpoint
            if is_url(checkpoint):
                checkpoint = f'{folder}/{one.name}.pth'
                model = build_float(_read(one.name, one.config))
                torch.save(model.state_dict(), checkpoint)
            specs[one.name] = dict(config=one.config, checkpoint=checkpoint)
        yield specs


def _read(name: str, config: str) -> Any:
    return config_reader.read_config(config, f'config of --teacher {name}')


def _forms(
    student: FloatProbe, probes: Mapping[str, FloatProbe]
) -> Iterator[dict[str, dict]]:
    names = [*probes]
    several = len(names) > 1
    who: dict[str, Any] = dict(teacher=names) if several else {}
    scores = dict(type='ScoreKDHead', **who)
    if several:
        scores['fusion'] = 'confidence'
    first: dict[str, Any] = dict(teacher=names[0]) if several else {}
    yield dict(score=scores, box=dict(type='BoxKDHead', **first))
    yield dict(detections=dict(type='DetectionKDHead', **who))
    features = {
        'neck' if not several else f'neck_{name}': _features(
            student, probes[name], name if several else None
        )
        for name in names
    }
    yield {key: head for key, head in features.items() if head}


def _features(
    student: FloatProbe, teacher: FloatProbe, name: str | None
) -> dict:
    """A FeatureKDHead on the strides that both have; {} if there is none."""
    strides = sorted(set(student.strides) & set(teacher.strides))
    if not strides:
        return {}
    mine, theirs = (
        [dict(zip(p.strides, p.channels))[s] for s in strides]
        for p in (student, teacher)
    )
    head: dict[str, Any] = dict(
        type='FeatureKDHead', student_channels=_short(mine)
    )
    if mine != theirs:
        head['teacher_channels'] = _short(theirs)
    head['strides'] = strides
    for side, probe in (('student', student), ('teacher', teacher)):
        if probe.tap != 'neck':
            head[f'{side}_tap'] = probe.tap
    if name is not None:
        head['teacher'] = name
    return head


def _short(channels: list[int]) -> int | list[int]:
    return channels[0] if len(set(channels)) == 1 else channels


def _misfit(
    cfg: Any,
    specs: Mapping[str, dict],
    heads: dict[str, dict],
    batch: dict,
    classes: Sequence[str] | None,
) -> str | None:
    """Why KD heads do not fit, or None: they are tried in float."""
    if not heads:
        return 'no stride in common'
    # Teachers were built in scopes of their own.
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = float_model(cfg)
    student = ConfigDict(
        copy.deepcopy(model),
        type='GoRDetector',
        detector=model['type'],
        teachers={**specs},
        kd_heads=heads,
        gor_weighting=dict(type='FixedWeighting'),
        gradient_tap='backbone',
    )
    try:
        built: Any = MODELS.build(student)
        built.init_weights()
        built.map_classes(classes)
        data = built.data_preprocessor(copy.deepcopy(batch), True)
        built.train()
        built(**data, mode='loss')
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return ' '.join(str(error).split())
    return None
