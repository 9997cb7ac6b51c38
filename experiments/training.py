"""One run, in its own folder and as a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

from mmgor.io.config_reader import type_name

from . import REPOSITORY
from .environment import commit, device
from .outcome import Outcome, read_outcome
from .plan import Plan
from .records import DONE, SKIPPED, Record
from .runs import Run, fill_in, sha256

#: Takes the config file as its argument.
TRAIN = (sys.executable, '-u', str(REPOSITORY / 'tools' / 'train.py'))
#: How the file with a run's detections begins; CocoMetric adds .bbox.json.
DETECTIONS = 'detections'


def train(
    run: Run, plan: Plan, command: tuple[str, ...], *parents: Record
) -> Record:
    """Train, and judge the outcome.

    Args:
        run (Run): Of the plan.
        plan (Plan): Its arms are not looked at.
        command (tuple[str, ...]): Program and arguments before the config.
        parents (Record): Of the runs that it needs. If one is not done, this
            one is skipped.
    """
    data, arm, bits, seed = run.key
    weights, seconds, code = {}, None, commit()
    missing = [p for p in parents if p.status != DONE]
    if missing:
        reason = f'needs {missing[0].name} ({missing[0].status})'
        outcome = Outcome(SKIPPED, reason)
    else:
        weights = {
            parent.name: checkpoint_hash(parent, plan.runs_folder)
            for parent in run.parents
        }
        started = time.monotonic()
        exit_status = _run(run, plan, command)
        seconds = round(time.monotonic() - started, 1)
        folder = plan.runs_folder / run.name
        outcome = read_outcome(folder, run.checkpoint, exit_status)
    return Record(
        arm=arm,
        bits=bits,
        seed=seed,
        data=data,
        epochs=run.epochs,
        config_hash=run.hash,
        parents=weights,
        commit=code,
        device=device(),
        wall_s=seconds,
        **outcome._asdict(),
    )


def checkpoint_hash(run: Run, folder: Path) -> str:
    """First 12 hex digits of the SHA-256 of a run's last weights.

    Args:
        run (Run): It is done.
        folder (Path): With one folder per run.

    Raises:
        FileNotFoundError: If they are not there.
    """
    return sha256(folder / run.name / run.checkpoint)[:12]


def _run(run: Run, plan: Plan, command: tuple[str, ...]) -> int:
    clear_folder(plan.runs_folder / run.name)
    config = write_run(run, plan)
    path = os.pathsep.join([str(REPOSITORY), os.environ.get('PYTHONPATH', '')])
    environment = dict(
        os.environ, PYTHONPATH=path, OMP_NUM_THREADS=str(plan.threads)
    )
    with config.with_name('train.log').open('wb') as log:
        return subprocess.run(
            [*command, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=environment,
        ).returncode


def write_run(run: Run, plan: Plan) -> Path:
    """Write ``hashed.json`` and ``config.py`` into the run's folder.

    Returns:
        Path: The config, ready for tools/train.py.
    """
    folder = plan.runs_folder / run.name
    folder.mkdir(parents=True)
    # First: it is what tells the folder of a start that was interrupted.
    text = json.dumps(run.hashed, indent=1, sort_keys=True)
    (folder / 'hashed.json').write_text(text + '\n')
    config = Config(dict(fill_in(run.config, plan.path)))
    config.work_dir = str(folder)
    metrics = config.val_evaluator
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    coco = [one for one in metrics if type_name(one) == 'CocoMetric']
    if coco:
        coco[0].outfile_prefix = str(folder / DETECTIONS)
    config.dump(folder / 'config.py')
    return folder / 'config.py'


def clear_folder(folder: Path) -> None:
    """Remove what an earlier start left, which was never recorded.

    Raises:
        FileExistsError: If it holds files of something else.
    """
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / 'hashed.json').exists():
        raise FileExistsError(
            f'{folder} exists and is not the folder of a run (it has no '
            'hashed.json); move it away, or name another --work-dir.'
        )
    # In one step: a kill in the midst leaves nothing that looks like a run.
    gone = folder.with_name(f'{folder.name}.removed')
    shutil.rmtree(gone, ignore_errors=True)
    shutil.rmtree(folder.rename(gone))
