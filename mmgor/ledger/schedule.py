"""Runs a plan: several at a time, each after those that it needs."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .environment import commit, device
from .estimates import Estimates, duration
from .outcome import Outcome, read_outcome
from .plan import Plan
from .processes import TRAIN, Training, check_folder
from .records import DONE, SKIPPED, Record, append_record
from .runs import Key, Run

_POLL_S = 0.1
_STATUS_S = 5.0


def select_runs(
    runs: list[Run],
    arms: list[str] | None = None,
    bits: list[str] | None = None,
) -> list[Run]:
    """The runs of some arms at some bits, with all that they need.

    Args:
        runs (list[Run]): Of a plan.
        arms (list[str], optional): Default: all.
        bits (list[str], optional): 'float' or names of the plan. Default:
            all.

    Raises:
        ValueError: If the plan has no such arm or bits, or no arm at these
            bits.
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
        known = sorted({r.key[2] for r in runs if r.key[1] in (arms or ())})
        raise ValueError(
            f'none of the arms {arms} has bits among {bits}; they have '
            f'{known}.'
        )
    for run in wanted:  # also over those that are added here
        wanted += [p for p in run.parents if p not in wanted]
    return [run for run in runs if run in wanted]


def open_runs(runs: list[Run], records: dict[Key, Record]) -> list[Run]:
    """Those without a final record. Skipped ones get another chance."""
    return [
        run
        for run in runs
        if run.key not in records or records[run.key].status == SKIPPED
    ]


def check_files(
    runs: list[Run], records: dict[Key, Record], folder: Path
) -> None:
    """Make sure that what open runs need of finished ones is on this disk,
    and that their own folders are free.

    Raises:
        FileNotFoundError: If results came without weights.
        FileExistsError: If a run's folder holds files of something else.
    """
    for run in open_runs(runs, records):
        check_folder(folder / run.name)
        for parent in run.parents:
            record = records.get(parent.key)
            if record is None or record.status != DONE:
                continue
            for name in ('config.py', parent.checkpoint):
                file = folder / parent.name / name
                if not file.is_file():
                    raise FileNotFoundError(
                        f'{run.name} needs {file} of a run that is recorded '
                        'as done. Copy it here from where it was trained, or '
                        "remove the run's line from the results to train it "
                        'again.'
                    )


class Schedule:
    """Trains what is open of some runs and records it.

    Attributes:
        records (dict): What is recorded, without what was skipped before.
        interrupted (bool): Set by a signal handler: ends :meth:`run` at a
            point where no training can be forgotten.

    Args:
        plan (Plan): Whose runs they are.
        runs (list[Run]): From :func:`select_runs`.
        records (dict): What is recorded.
        lock (int): From :func:`mmgor.ledger.records.locked`.
        tell (Callable): Takes a line for each run that starts or ended.
        status (Callable): Takes a line about those in flight now and then.
        train (tuple[str, ...]): Command that takes a config file.
    """

    def __init__(
        self,
        plan: Plan,
        runs: list[Run],
        records: dict[Key, Record],
        lock: int,
        tell: Callable[[str], None],
        status: Callable[[str], None] = lambda line: None,
        train: tuple[str, ...] = TRAIN,
    ) -> None:
        self.plan = plan
        self.total = len(runs)
        self.skipped = {
            k: r for k, r in records.items() if r.status == SKIPPED
        }
        self.records = {
            k: r for k, r in records.items() if k not in self.skipped
        }
        self.lock = lock
        self.tell = tell
        self.status = status
        self.train = train
        self.interrupted = False
        self.device = device()
        self.waiting = open_runs(runs, records)
        self.running: dict[Run, tuple[Training, str]] = {}
        self.estimates = Estimates(self.records.values(), self.device)

    def run(self) -> None:
        """Until nothing is open. An exception ends the trainings in flight;
        they are not recorded.

        Raises:
            KeyboardInterrupt: When it is ``interrupted``.
        """
        shown = time.monotonic()
        try:
            while self.waiting or self.running:
                if self.interrupted:
                    raise KeyboardInterrupt
                self._skip()
                self._start()
                self._collect()
                if time.monotonic() - shown > _STATUS_S:
                    self._show()
                    shown = time.monotonic()
                time.sleep(_POLL_S)
        finally:
            for training, _ in self.running.values():
                training.stop()
            for run in self.running:
                self.tell(f'{run.name}: stopped, not recorded')

    def _skip(self) -> None:
        for run in list(self.waiting):
            for parent in run.parents:
                record = self.records.get(parent.key)
                if record is not None and record.status != DONE:
                    self.waiting.remove(run)
                    reason = f'needs {parent.name} ({record.status})'
                    self._record(run, Outcome(SKIPPED, reason), commit())
                    break

    def _start(self) -> None:
        for run in list(self.waiting):
            if len(self.running) >= self.plan.workers:
                return
            if all(self._done(parent) for parent in run.parents):
                self.waiting.remove(run)
                code = commit()
                try:  # files may have come or gone since the plan started
                    check_files([run], self.records, self.plan.runs_folder)
                except (FileExistsError, FileNotFoundError) as error:
                    self._record(run, Outcome(SKIPPED, str(error)), code)
                    continue
                self.tell(f'{run.name}: starts')
                training = Training(run, self.plan, self.train, self.lock)
                self.running[run] = training, code

    def _done(self, run: Run) -> bool:
        record = self.records.get(run.key)
        return record is not None and record.status == DONE

    def _collect(self) -> None:
        for run, (training, code) in list(self.running.items()):
            exit_status = training.process.poll()
            if exit_status is None:
                continue
            del self.running[run]
            wall_s = training.seconds
            outcome = read_outcome(run, training.folder, exit_status)
            self._record(run, outcome, code, wall_s, training.parents)

    def _record(
        self,
        run: Run,
        outcome: Outcome,
        code: str,
        wall_s: float | None = None,
        parents: dict[str, str] | None = None,
    ) -> None:
        data, arm, bits, seed = run.key
        record = Record(
            arm=arm,
            bits=bits,
            seed=seed,
            data=data,
            epochs=run.epochs,
            config_hash=run.hash,
            parents=parents or {},
            commit=code,
            device=self.device,
            wall_s=None if wall_s is None else round(wall_s, 1),
            **outcome._asdict(),
        )
        # A run that is skipped again for the same reason is no news.
        old = self.skipped.get(run.key)
        if old is None or replace(record, commit=old.commit) != old:
            append_record(self.plan.results, record)
        self.records[run.key] = record
        self.estimates = Estimates(self.records.values(), self.device)
        ended = self.total - len(self.waiting) - len(self.running)
        self.tell(f'[{ended}/{self.total}] {describe(record)}; {self._left()}')

    def _left(self) -> str:
        running = {run: t.seconds for run, (t, _) in self.running.items()}
        return self.estimates.left(self.waiting, running, self.plan.workers)

    def _show(self) -> None:
        parts = [
            f'{run.name} {training.progress()}'
            for run, (training, _) in self.running.items()
        ]
        self.status(' | '.join([*parts, self._left()]))


def describe(record: Record) -> str:
    """One line: name, status, numbers or the start of the reason."""
    line = f'{record.name}: {record.status}'
    if record.mAP is not None and record.AP50 is not None:
        line += f', mAP {100 * record.mAP:.1f}, AP50 {100 * record.AP50:.1f}'
    if record.reason:
        line += f', {record.reason.splitlines()[0]}'
    if record.wall_s is not None:
        line += f', {duration(record.wall_s)}'
    return line
