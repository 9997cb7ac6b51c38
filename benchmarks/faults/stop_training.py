"""Stops a training by SIGTERM or Ctrl-C at random moments, and resumes it.

    python -m benchmarks.faults.stop_training [--stops 40] [--seed 0]

The training of kill_training gets the signal as one process, or together with
the workers of its data loader, as from a terminal or a job scheduler. It has
to end with 128 plus the signal's number, to name its checkpoint and how to go
on, and to end, once resumed, as an undisturbed one does, bit for bit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from .kill_training import Reference
from .toy_training import (
    SETUPS,
    Scenes,
    differences,
    end_state,
    make_cheap,
    start,
    wait,
)

TARGETS = {'process': os.kill, 'group': os.killpg}


def trial(
    scenes: Scenes,
    reference: Reference,
    work_dir: Path,
    setup: str,
    name: str,
    target: str,
    moment: float,
) -> dict[str, Any]:
    """Stop one training, and let it go on.

    Args:
        scenes (Scenes): Its data.
        reference (Reference): What it has to be equal to.
        work_dir (Path): Is made.
        setup (str): How it reads its data.
        name (str): Name of the signal.
        target (str): One of :data:`TARGETS`.
        moment (float): When, as a share of the reference's seconds.

    Returns:
        dict: ``statuses`` of both starts, ``stopped`` (it has left a file)
        and ``differences`` from the reference.
    """
    work_dir.mkdir()
    log, number = work_dir / 'log.txt', getattr(signal, name)
    child = start(partial(scenes.train, work_dir, setup), log)
    time.sleep(moment * reference.seconds)
    with suppress(ProcessLookupError):
        TARGETS[target](child, number)
    statuses = [wait(child)]
    stopped = (work_dir / 'stopped.pth').is_file()
    if statuses[0]:
        resumed = partial(scenes.train, work_dir, setup, resume=True)
        statuses.append(wait(start(resumed, log)))
    ended = statuses[-1] == 0
    found = differences(reference.end, end_state(work_dir)) if ended else []
    finished = statuses == [0] and not stopped
    asked = statuses == [128 + number, 0] and stopped
    return dict(
        setup=setup,
        signal=name,
        target=target,
        moment=moment,
        statuses=statuses,
        stopped=stopped,
        differences=found[:5],
        good=not found and (finished or asked),
    )


def campaign(folder: Path, stops: int, seed: int) -> list[dict[str, Any]]:
    """Trials over all setups, signals and targets in turn.

    Args:
        folder (Path): Gets the trainings.
        stops (int): Number of trials.
        seed (int): Of the moments.
    """
    make_cheap()
    generator = random.Random(seed)
    scenes = Scenes(folder)
    references: dict[str, Reference] = {}
    cases = [
        (setup, name, target)
        for name in ('SIGTERM', 'SIGINT')
        for target in TARGETS
        for setup in SETUPS
    ]
    trials = []
    for i in range(stops):
        setup, name, target = cases[i % len(cases)]
        if setup not in references:
            work_dir = folder / f'reference{len(references)}'
            references[setup] = Reference(scenes, setup, work_dir)
        result = trial(
            scenes,
            references[setup],
            folder / f'trial{i}',
            *(setup, name, target),
            generator.random(),
        )
        trials.append(result)
        verdict = 'equal' if result['good'] else f'FAILED: {result}'
        case = f'{setup}, {name} to the {target}'
        print(f'[{i + 1}/{stops}] {case}: {verdict}', flush=True)
        if result['good']:
            shutil.rmtree(folder / f'trial{i}')
        else:
            print((folder / f'trial{i}' / 'log.txt').read_text()[-2000:])
    return trials


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--stops', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials = campaign(Path(folder), args.stops, args.seed)
    good = sum(result['good'] for result in trials)
    stopped = sum(result['stopped'] for result in trials)
    print(json.dumps(dict(stops=len(trials), stopped=stopped, equal=good)))
    return int(good < len(trials))


if __name__ == '__main__':
    raise SystemExit(main())
