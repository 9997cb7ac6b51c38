"""Results as JSON lines: one line per run that ended, never rewritten."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .runs import Key, run_name

DONE, FAILED, SKIPPED = 'done', 'failed', 'skipped'


@dataclass(frozen=True)
class Record:
    """One line.

    Args:
        epochs (int, optional): 0: calibrated only; None: trained for a
            number of iterations.
        mAP (float, optional): COCO mAP of the last evaluation, in [0, 1];
            None: it has no such metric.
        AP50 (float, optional): At IoU 0.5, likewise.
        config_hash (str): See :mod:`experiments.runs`.
        parents (dict[str, str]): Name of each run that it needed to the
            first 12 hex digits of the SHA-256 of that one's last weights.
        commit (str): Of the code, '-dirty' if it had changes.
        wall_s (float, optional): Seconds it took.
        gor_w_task (float, optional): Weight of the task loss, mean over the
            logged iterations of the last epoch.
        gor_w_kd (float, optional): Weight of the distillation loss, likewise.
        status (str): 'done', 'failed' or 'skipped' (a run that it needs
            failed).
        reason (str): What went wrong, '' if nothing.
    """

    arm: str
    bits: str
    seed: int
    data: str
    epochs: int | None
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
        ValueError: If a line is not a record, with its number; empty ones
            are passed over.
    """
    records = {}
    lines = path.read_text().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with the keys '
                f'{list(Record.__annotations__)} ({error}). Mend the line, or '
                'remove it, then the arm runs again.'
            ) from error
        records[record.key] = record
    return records


def append_record(results: Path, record: Record) -> None:
    """Add a line as a whole or not at all.

    Args:
        results (Path): Is made if it does not exist.
        record (Record): The line.

    Raises:
        OSError: If the disk is full; the file is as before then.
    """
    line = json.dumps(asdict(record), allow_nan=False).encode() + b'\n'
    with results.open('ab+', buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before:
            file.seek(before - 1)
            if file.read(1) != b'\n':  # an editor may leave it open
                line = b'\n' + line
        if file.write(line) != len(line):
            file.truncate(before)
            raise OSError(f'disk full; not recorded: {line.decode()}')
        os.fsync(file.fileno())
