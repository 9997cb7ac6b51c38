"""From a plan to its runs, and to the hash that tells a finished one.

A run's ``config_hash`` is the first 12 hex digits of the SHA-256 of

- its complete config after all options, with ``<data:NAME>``,
  ``<weights:NAME>`` and ``<run:NAME>`` in place of paths and without
  ``work_dir``;
- the SHA-256 of the annotation files that it reads (not of the images);
- the SHA-256 of the weight files that it names;
- the hashes of the runs that it starts from or learns from.

So it is the same on every machine. It does not depend on mmgor's code (whose
commit is recorded), on versions of packages, on the device, or on the plan's
workers and threads.
"""

import hashlib
import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmgor.io.config_reader import loader_datasets

from .filling import calibrate_only, merge_options, put_data, set_epochs
from .plan import FLOAT, Arm, Plan

#: Data, arm, bits, seed.
Key = tuple[str, str, str, int]
_MARKER = re.compile(r'<(data|weights|run):([^<>]*)>')


class Source(NamedTuple):
    """Config and last weights of a run that another one needs."""

    config: str
    checkpoint: str


def run_name(key: Key) -> str:
    """A run's folder below the plan's."""
    data, arm, bits, seed = key
    return f'{data}/{arm}/{bits}/seed{seed}'


# Compared by identity: a config is not a key of a dict.
@dataclass(frozen=True, eq=False)
class Run:
    """One training (or calibration) of a plan.

    Args:
        key (tuple): Data, arm, bits, seed.
        config (dict): Complete, with markers in place of paths.
        parents (tuple[Run, ...]): Runs that must be done before.
        files (dict[str, str]): SHA-256 of what it reads besides images.
    """

    key: Key
    config: dict[str, Any]
    parents: tuple['Run', ...]
    files: dict[str, str]

    @property
    def name(self) -> str:
        """Its folder below the plan's."""
        return run_name(self.key)

    @property
    def epochs(self) -> int | None:
        """0: calibrated and evaluated, not trained; None: trained for a
        number of iterations."""
        return self.config['train_cfg'].get('max_epochs')

    @property
    def checkpoint(self) -> str:
        """File name of the last weights."""
        if self.epochs is None:
            return f'iter_{self.config["train_cfg"]["max_iters"]}.pth'
        return f'epoch_{self.epochs}.pth'

    @property
    def source(self) -> Source:
        """Config and weights for runs that need this one, as markers."""
        folder = f'<run:{self.name}>'
        return Source(f'{folder}/config.py', f'{folder}/{self.checkpoint}')

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """The content of the hash, as JSON gives it back."""
        content = dict(
            config=self.config,
            files=self.files,
            parents={parent.name: parent.hash for parent in self.parents},
        )
        return json.loads(json.dumps(content, default=repr))

    @cached_property
    def hash(self) -> str:
        """See the module."""
        text = json.dumps(self.hashed, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def build_runs(plan: Plan) -> list[Run]:
    """Every run of a plan: independent ones first, then seed by seed, each
    after those that it needs.

    Raises:
        ValueError: If a config is not one that the plan can fill in.
    """
    made: dict[Key, Run] = {}
    for seed in plan.seeds:
        for data in plan.data:
            for arm in plan.arms.values():
                for bits in arm.bits:
                    own = 0 if arm.once else seed
                    _make(plan, (data, arm.name, bits, own), made)
    return sorted(made.values(), key=lambda run: bool(run.parents))


def select_runs(
    runs: list[Run],
    arms: list[str] | None = None,
    bits: list[str] | None = None,
) -> list[Run]:
    """The runs of some arms (default: all) at some bits (default: all), with
    all that they need.

    Raises:
        ValueError: If there are none.
    """
    wanted = runs
    for what, place, names in (('arm', 1, arms), ('bits', 2, bits)):
        known = list(dict.fromkeys(run.key[place] for run in runs))
        unknown = [name for name in names or [] if name not in known]
        if unknown:
            raise ValueError(
                f'no {what} {unknown} in the plan; it has {known}.'
            )
        wanted = [r for r in wanted if names is None or r.key[place] in names]
    if not wanted:
        raise ValueError(f'none of the arms {arms} has bits among {bits}.')
    for run in wanted:  # also over those that are added here
        wanted += [p for p in run.parents if p not in wanted]
    return [run for run in runs if run in wanted]


def _make(plan: Plan, key: Key, made: dict[Key, Run]) -> Run:
    if key in made:
        return made[key]
    data, name, bits, seed = key
    arm = plan.arms[name]
    if not arm.once and seed not in plan.seeds:
        raise ValueError(
            f'a teacher (seed 0) needs {name!r} with seed {seed}, which is '
            f'not in seeds {list(plan.seeds)}; add it.'
        )
    parents = {}
    for need in arm.needs:
        target = plan.arms[need]
        own = 0 if target.once else seed
        parent = (data, need, _bits_of(target, bits, arm), own)
        parents[need] = _make(plan, parent, made)
    sources = {need: run.source for need, run in parents.items()}
    try:
        config = complete_config(plan, arm, key, sources)
    except ValueError as error:
        raise ValueError(f'arm {name!r}: {error}') from error
    files = _files(plan, data, config)
    made[key] = Run(key, config, tuple(parents.values()), files)
    return made[key]


def _bits_of(target: Arm, bits: str, arm: Arm) -> str:
    """The target's run of as many bits, or the only one that it has."""
    if bits in target.bits:
        return bits
    if len(target.bits) == 1:
        return target.bits[0]
    raise ValueError(
        f'arm {arm.name!r} at {bits} needs {target.name!r}, which has '
        f'{list(target.bits)}; expected {bits} among them, or one only.'
    )


def complete_config(
    plan: Plan, arm: Arm, key: Key, sources: dict[str, Source]
) -> dict[str, Any]:
    """The config of one run: the arm's, then the data, the epochs, the
    options of the bits, those of the arm, and last what it needs of others.

    Raises:
        ValueError: If the arm's config is not one that can be filled in.
    """
    data, _, bits, seed = key
    cfg = deepcopy(arm.base)
    _check_bits(cfg, bits)
    put_data(cfg, plan.data[data], f'<data:{data}>')
    if arm.epochs:
        set_epochs(cfg, arm.epochs)
    cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    for options in (plan.bits.get(bits, {}), arm.options):
        merge_options(cfg, options)
    if cfg.randomness.seed != seed:
        raise ValueError('its options set randomness.seed; use seeds.')
    if arm.epochs == 0:
        calibrate_only(cfg)
    if arm.start is not None:
        if 'load_from' in arm.options:
            raise ValueError('has both start and load_from; remove one.')
        cfg.load_from = sources[arm.start].checkpoint
    for slot, teacher in arm.teachers.items():
        slots = cfg.model.get('teachers', {})
        if slot not in slots:
            raise ValueError(
                f'teachers has {slot!r}; {arm.config} has {list(slots)}.'
            )
        slots[slot].update(sources[teacher]._asdict())
    cfg.pop('work_dir', None)
    return cfg.to_dict()


def _check_bits(cfg: Config, bits: str) -> None:
    parts = [part for part in cfg.model.values() if isinstance(part, dict)]
    quantized = any('quant' in part for part in (cfg.model, *parts))
    if quantized and bits == FLOAT:
        raise ValueError(
            f'has no bits, but {cfg.filename} is quantized; name them, e.g. '
            'bits: [W4A4].'
        )
    if not quantized and bits != FLOAT:
        raise ValueError(
            f'has bits {bits}, but {cfg.filename} is not quantized; leave '
            'its bits out.'
        )


def fill_in(value: Any, path_of: Callable[[str, str], Path]) -> Any:
    """A config, or a part of it, with the path of each kind ('data',
    'weights', 'run') and name in place of its marker."""
    if isinstance(value, dict):
        return {key: fill_in(part, path_of) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(fill_in(part, path_of) for part in value)
    if isinstance(value, str):
        return _MARKER.sub(lambda m: str(path_of(m[1], m[2])), value)
    return value


def _files(plan: Plan, data: str, config: dict) -> dict[str, str]:
    root = plan.data[data].root
    names = [
        dataset['ann_file']
        for loader in ('train_dataloader', 'val_dataloader')
        for dataset in loader_datasets(config, loader)
    ]
    files = {name: root / name for name in names}
    found = _MARKER.findall(json.dumps(config, default=repr))
    for name in sorted({name for kind, name in found if kind == 'weights'}):
        if name not in plan.weights:
            raise ValueError(
                f'unknown <weights:{name}>; the plan has '
                f'{sorted(plan.weights)}.'
            )
        files[f'<weights:{name}>'] = plan.weights[name]
    return {name: sha256(file) for name, file in files.items()}


def sha256(file: Path) -> str:
    """Hex digest of a file; read again only if it has changed.

    Raises:
        FileNotFoundError: If it does not exist.
    """
    facts = file.stat()
    return _sha256_of(file, facts.st_size, facts.st_mtime_ns)


@cache  # every run of a plan reads the same annotations
def _sha256_of(file: Path, size: int, time: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
