"""From a plan to its runs, and what tells a finished one.

A run's ``config_hash`` is the first 12 hex digits of the SHA-256 of

- its complete config after all options, with ``<data:NAME>``,
  ``<weights:NAME>`` and ``<run:NAME>`` in place of paths and without
  ``work_dir``;
- the SHA-256 of the data's train.json and eval.json (not of its pictures);
- the SHA-256 of the weight files that it names;
- the hashes of the runs that it starts from or learns from.

So it is the same on every machine. Not in it: mmgor's code (its commit is
recorded), versions of packages, device, workers and threads.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .configs import Source, complete_config, fill_in, weights_in
from .plan import Arm, Plan

#: Data, arm, bits, seed.
Key = tuple[str, str, str, int]


def run_name(key: Key) -> str:
    """A run's folder below the plan's."""
    data, arm, bits, seed = key
    return f'{data}/{arm}/{bits}/seed{seed}'


# Compared by identity: a config is no key of a dict.
@dataclass(frozen=True, eq=False)
class Run:
    """One training (or calibration) of a plan.

    Args:
        key (tuple): Data, arm, bits, seed.
        epochs (int): 0: calibrated and evaluated, not trained.
        config (dict): Complete, with markers in place of paths.
        parents (tuple[Run, ...]): Runs that must be done before.
        files (dict[str, str]): SHA-256 of what it reads besides pictures.
    """

    key: Key
    epochs: int
    config: dict[str, Any]
    parents: tuple['Run', ...]
    files: dict[str, str]

    @property
    def name(self) -> str:
        """Its folder below the plan's."""
        return run_name(self.key)

    @property
    def checkpoint(self) -> str:
        """File name of the last weights."""
        return f'epoch_{self.epochs}.pth'

    @property
    def source(self) -> Source:
        """What runs that need this one read, as markers."""
        folder = f'<run:{self.name}>'
        return Source(f'{folder}/config.py', f'{folder}/{self.checkpoint}')

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """What the hash is of, as JSON gives it back."""
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


def recorded_runs(plan: Plan, keys: Iterable[Key]) -> list[Run]:
    """Runs of a plan, also of seeds and bits that it had once: independent
    ones first.

    Args:
        plan (Plan): The plan.
        keys (Iterable[Key]): What is recorded. Left out are runs whose arm,
            data or bits the plan no longer has, or whose arm changed between
            float and quantized.
    """
    keys = [k for k in keys if k[0] in plan.data and k[1] in plan.arms]
    plan = replace(plan, seeds=tuple({*plan.seeds, *(k[3] for k in keys)}))
    listed = {run.key: run for run in build_runs(plan)}
    arms = dict(plan.arms)
    for _, name, bits, _ in keys:
        if bits in plan.bits and bits not in arms[name].bits:
            arms[name] = replace(arms[name], bits=(*arms[name].bits, bits))
    once = replace(plan, arms=arms)
    made: dict[Key, Run] = {}
    for key in keys:
        if key not in listed and key[2] in arms[key[1]].bits:
            try:
                _make(once, key, made)
            except ValueError:  # it, or what it needs, is of other bits now
                continue
    found = {**made, **listed}
    runs = [found[key] for key in keys if key in found]
    return sorted(runs, key=lambda run: bool(run.parents))


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
        parent = (
            data,
            need,
            _bits_of(target, bits, arm),
            0 if target.once else seed,
        )
        parents[need] = _make(plan, parent, made)
    sources = {need: run.source for need, run in parents.items()}
    config = complete_config(plan, arm, data, bits, seed, sources)
    made[key] = Run(
        key=key,
        epochs=arm.epochs,
        config=config,
        parents=tuple(parents.values()),
        files=_files(plan, data, config),
    )
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


def _files(plan: Plan, data: str, config: dict) -> dict[str, str]:
    root = plan.data[data].root
    files = {f'{s}.json': root / f'{s}.json' for s in ('train', 'eval')}
    for name in sorted(weights_in(config)):
        if name not in plan.weights:
            raise ValueError(
                f'unknown <weights:{name}>; the plan has '
                f'{sorted(plan.weights)}.'
            )
        files[f'<weights:{name}>'] = plan.weights[name]
    return {name: _sha256(file) for name, file in files.items()}


def _sha256(file: Path) -> str:
    facts = file.stat()
    return _sha256_of(file, facts.st_size, facts.st_mtime_ns)


@cache  # every run of a plan reads the same annotations
def _sha256_of(file: Path, size: int, time: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checkpoint_hash(run: Run, folder: Path) -> str:
    """First 12 hex digits of the SHA-256 of a run's last weights.

    Args:
        run (Run): Which is done.
        folder (Path): With one folder a run.

    Raises:
        FileNotFoundError: If they are not there.
    """
    return _sha256(folder / run.name / run.checkpoint)[:12]


def write_run(run: Run, plan: Plan) -> Path:
    """Write ``hashed.json`` and ``config.py`` into the run's folder.

    Returns:
        Path: The config, ready for tools/train.py.
    """
    folder = plan.runs_folder / run.name

    def path_of(kind: str, name: str) -> Path:
        if kind == 'data':
            return plan.data[name].root
        if kind == 'weights':
            return plan.weights[name]
        return plan.runs_folder / name

    folder.mkdir(parents=True)
    # First: it is what tells the folder of a start that was interrupted.
    text = json.dumps(run.hashed, indent=1, sort_keys=True)
    (folder / 'hashed.json').write_text(text + '\n')
    config = dict(fill_in(run.config, path_of), work_dir=str(folder))
    Config(config).dump(folder / 'config.py')
    return folder / 'config.py'
