"""Results as JSON lines: one line an arm that ended, never rewritten."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from .plan_values import check_name, whole_number
from .runs import Key, run_name

DONE, FAILED, SKIPPED = 'done', 'failed', 'skipped'


@dataclass(frozen=True)
class Record:
    """One line.

    Args:
        arm (str): Name in the plan.
        bits (str): Name in the plan, or 'float'.
        seed (int): Of the run.
        data (str): Name in the plan.
        epochs (int): 0: calibrated only.
        mAP (float, optional): COCO mAP of the last epoch, of 1.
        AP50 (float, optional): At IoU 0.5, of 1.
        config_hash (str): See :mod:`mmgor.ledger.runs`.
        parents (dict[str, str]): Name of each run that it needed to the
            first 12 hex digits of the SHA-256 of that one's last weights.
        commit (str): Of the code, '-dirty' if it had changes.
        device (str): Name of the processor or GPU.
        wall_s (float, optional): Seconds it took.
        gor_w_task (float, optional): Weight of the task loss, mean over the
            logged iterations of the last epoch.
        gor_w_kd (float, optional): Weight of the distillation loss, likewise.
        status (str): 'done', 'failed' or 'skipped' (what it needs failed, or
            is not there).
        reason (str): Of what went wrong, '' if nothing.
    """

    arm: str
    bits: str
    seed: int
    data: str
    epochs: int
    mAP: float | None
    AP50: float | None
    config_hash: str
    parents: dict[str, str]
    commit: str
    device: str
    wall_s: float | None
    gor_w_task: float | None
    gor_w_kd: float | None
    status: str
    reason: str

    @property
    def key(self) -> Key:
        """Data, arm, bits, seed."""
        return self.data, self.arm, self.bits, self.seed

    @property
    def name(self) -> str:
        """The run's folder below the plan's."""
        return run_name(self.key)


def read_records(path: Path) -> dict[Key, Record]:
    """The last line of each run; {} if the file does not exist.

    Raises:
        ValueError: If a line is no record, with its number; empty ones are
            passed over.
    """
    records = {}
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _read_record(line)
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: {error} Mend the line, or remove it, '
                'then the arm runs again.'
            ) from error
        records[record.key] = record
    return records


def _read_record(line: bytes) -> Record:
    """A line, with all that the tables count on; it may be an editor's."""
    try:
        content = json.loads(line)
    except ValueError as error:  # no UTF-8, too
        raise ValueError(f'expected a JSON object ({error}).') from error
    names = {field.name for field in fields(Record)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError(
            f'expected the keys {sorted(names)}, got {str(content)[:200]}.'
        )
    for name in ('arm', 'bits', 'data'):
        check_name(content[name], name)
    for name in ('seed', 'epochs'):
        whole_number(content[name], name, 0)
    for name in ('config_hash', 'commit', 'device', 'reason'):
        if not isinstance(content[name], str):
            raise ValueError(
                f'expected a text as {name}, got {content[name]!r}.'
            )
    parents = content['parents']
    if not isinstance(parents, dict) or not all(
        isinstance(value, str) for value in parents.values()
    ):
        raise ValueError(f'expected parents as name: hash, got {parents!r}.')
    if content['status'] not in (DONE, FAILED, SKIPPED):
        raise ValueError(
            f'expected status {DONE!r}, {FAILED!r} or {SKIPPED!r}, got '
            f'{content["status"]!r}.'
        )
    for name in ('mAP', 'AP50', 'wall_s', 'gor_w_task', 'gor_w_kd'):
        _check_number(name, content[name], content['status'] == DONE)
    return Record(**content)


def _check_number(name: str, value: Any, done: bool) -> None:
    needed = done and not name.startswith('gor_')
    if value is None and not needed:
        return
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(
            f'expected {name} to be a finite number'
            f'{"" if needed else " or null"}, got {value!r}.'
        )
    if name in ('mAP', 'AP50') and not 0 <= value <= 1:
        raise ValueError(f'expected {name} between 0 and 1, got {value!r}.')


@contextmanager
def locked(results: Path) -> Iterator[int]:
    """Keep results for this process and the trainings it starts.

    The lock is on ``<results>.lock``: a results file may be edited by hand
    while a ledger runs, and editors put a new file in the old one's place.

    Args:
        results (Path): Need not exist; its folder is made.

    Yields:
        int: File descriptor. The lock holds until every process that
        inherited it has ended, so that no arm is trained twice at a time.

    Raises:
        RuntimeError: If another process has it.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    path = results.with_name(f'{results.name}.lock')
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f'{results} is in use by another ledger, or by a training '
                'that outlived one that was killed. Wait until it has ended, '
                f'or end it: `fuser -v {path}` lists the processes.'
            ) from None
        yield file
    finally:
        os.close(file)


def append_record(results: Path, record: Record) -> None:
    """Add a line as a whole or not at all.

    Args:
        results (Path): Is made if it does not exist.
        record (Record): What to add.

    Raises:
        OSError: If the disk is full; the file is as before then.
    """
    line = (json.dumps(asdict(record), allow_nan=False) + '\n').encode()
    file = os.open(results, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(file).st_size
        if before and os.pread(file, 1, before - 1) != b'\n':
            line = b'\n' + line  # an editor may leave the last line open
        if os.write(file, line) < len(line):
            os.ftruncate(file, before)
            raise OSError(f'disk full; not recorded: {line.decode()}')
        os.fsync(file)
    finally:
        os.close(file)
