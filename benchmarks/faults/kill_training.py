"""Kills a training at random moments, resumes it, and compares the ends.

    python -m benchmarks.faults.kill_training [--kills 100] [--seed 0]

A tiny W4A4 student learns from a teacher: QAT, three KD heads, GoR, EMA,
random flips, evaluations in the midst. It gets up to three SIGKILLs and is
resumed after each. The end has to be that of an undisturbed training, bit for
bit: weights, thetas, step sizes, EMA, optimizer, schedulers, the best
checkpoints, the names of all checkpoints, and what was logged of iterations
and evaluations. Some kills come at a random time, the
others (`--in-writes`) at a random call of `os.fsync`, `os.replace`,
`Path.unlink` or `Path.write_bytes`: before or after it, or with a part of the
bytes written. Writes into open streams are not watched.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mmgor.io.atomic_write import writing

from .toy_training import (
    SETUPS,
    Scenes,
    differences,
    end_state,
    make_cheap,
    start,
    wait,
)

#: Kills of one training, at most.
CHAIN = 3


class Writes:
    """Counts the calls that put files in place, and ends the process at one
    of them."""

    def __init__(self, last: float, share: float = 0.0) -> None:
        self.number, self.last, self.share = 0, last, share

    def watch(self) -> None:
        """From now on, the four calls below count."""
        os.fsync = self._watched(os.fsync)
        os.replace = self._watched(os.replace)
        Path.unlink = self._watched(Path.unlink)
        Path.write_bytes = self._watched(Path.write_bytes)

    def _watched(self, stock: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.number += 1
            if self.number < self.last:
                return stock(*args, **kwargs)
            if stock.__name__ == 'write_bytes':
                path, content = args
                stock(path, content[: int(self.share * len(content))])
            elif self.share > 0.5:
                stock(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


class Reference:
    """An undisturbed training: its end, seconds and number of writes."""

    def __init__(self, scenes: Scenes, setup: str, work_dir: Path) -> None:
        work_dir.mkdir()

        def train() -> None:
            writes = Writes(float('inf'))
            writes.watch()
            scenes.train(work_dir, setup)
            (work_dir / 'writes.txt').write_text(str(writes.number))

        began = time.monotonic()
        status = wait(start(train, work_dir / 'log.txt'))
        if status:
            raise RuntimeError((work_dir / 'log.txt').read_text())
        self.seconds = time.monotonic() - began
        self.writes = int((work_dir / 'writes.txt').read_text())
        self.end = end_state(work_dir)


def trial(
    scenes: Scenes,
    setup: str,
    reference: Reference,
    work_dir: Path,
    kills: list[tuple[str, float, float]],
) -> dict[str, Any]:
    """Kill one training several times, and let it end.

    Args:
        scenes (Scenes): Its data.
        setup (str): How it reads them.
        reference (Reference): What it has to be equal to.
        work_dir (Path): Is made.
        kills (list[tuple[str, float, float]]): 'time' or 'write', when (as
            a share of the seconds or writes of the reference), and how much
            of the last write is done.

    Returns:
        dict: ``killed`` (number of kills by where they hit), ``status`` of
        the last start and ``differences`` from the reference.
    """
    work_dir.mkdir()
    killed: Counter[str] = Counter()
    status = -signal.SIGKILL
    for number in range(len(kills) + 1):
        kind, moment, share = (*kills, ('end', 1.0, 0.0))[number]

        resume = number > 0
        last, seconds = float('inf'), None
        if kind == 'time':
            seconds = moment * reference.seconds
        elif kind == 'write':
            last = 1 + int(moment * reference.writes)
        child = start(
            partial(
                _train_until, last, share, scenes, work_dir, setup, resume
            ),
            work_dir / 'log.txt',
        )
        status = wait(child, seconds)
        if status != -signal.SIGKILL:
            break
        half = any(work_dir.glob('.*.tmp*'))
        begun = any(work_dir.glob('*.pth'))
        where = 'in a write' if half or kind == 'write' else 'between writes'
        killed[where if begun or half else 'before the first checkpoint'] += 1
    ok = status == 0
    found = differences(reference.end, end_state(work_dir)) if ok else []
    left = [path.name for path in work_dir.glob('.*')]
    return dict(
        setup=setup,
        kills=kills,
        killed=dict(killed),
        status=status,
        differences=found[:5],
        left=left,
        good=ok and not found and not left,
    )


def _train_until(
    last: float, share: float, scenes: Scenes, *arguments: Any
) -> None:
    Writes(last, share).watch()
    scenes.train(*arguments)


def campaign(
    folder: Path, kills: int, in_writes: float, seed: int, setups: list[str]
) -> list[dict[str, Any]]:
    """Trials until there were enough kills.

    Args:
        folder (Path): Gets the trainings.
        kills (int): Number of kills.
        in_writes (float): Share of the kills that come at a write.
        seed (int): Of the moments.
        setups (list[str]): Taken in turn.
    """
    make_cheap()
    generator = random.Random(seed)
    scenes = Scenes(folder)
    references, trials, done = {}, [], 0
    while done < kills:
        setup = setups[len(trials) % len(setups)]
        if setup not in references:
            work_dir = folder / f'reference{len(references)}'
            references[setup] = Reference(scenes, setup, work_dir)
            seconds = references[setup].seconds
            print(f'{setup}: {seconds:.1f} s undisturbed', flush=True)
        chain = [
            (
                'write' if generator.random() < in_writes else 'time',
                generator.random(),
                generator.random(),
            )
            for _ in range(min(CHAIN, kills - done))
        ]
        work_dir = folder / f'trial{len(trials)}'
        result = trial(scenes, setup, references[setup], work_dir, chain)
        trials.append(result)
        done += sum(result['killed'].values())
        verdict = 'equal' if result['good'] else f'DIFFERENT: {result}'
        hits = ', '.join(f'{n} {w}' for w, n in result['killed'].items())
        print(f'[{done}/{kills}] {setup}: {hits}: {verdict}', flush=True)
        if result['good']:
            shutil.rmtree(work_dir)
    return trials


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Kills by where they hit, trainings and how many of them were equal."""
    killed: Counter[str] = Counter()
    for result in trials:
        killed.update(result['killed'])
    return dict(
        kills=sum(killed.values()),
        killed=dict(killed),
        trainings=len(trials),
        equal=sum(result['good'] for result in trials),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--in-writes', type=float, default=0.3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--setups', nargs='+', default=list(SETUPS))
    parser.add_argument('--json', type=Path, help='file for all trials')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials = campaign(
            Path(folder), args.kills, args.in_writes, args.seed, args.setups
        )
    result = summary(trials)
    print(json.dumps(result, indent=1))
    if args.json:
        with writing(args.json) as part:
            part.write_text(json.dumps(dict(result, trials=trials), indent=1))
    return int(result['equal'] < result['trainings'])


if __name__ == '__main__':
    raise SystemExit(main())
