"""How far the runs are: their logs in few lines, and the time left."""

import re
from collections.abc import Iterable
from pathlib import Path

from .records import DONE, Record
from .runs import Run

_PROGRESS = re.compile(
    r'(Epoch|Iter)\((train|val)\)\s+((?:\[[\s\d/]+\])+).*?'
    r'eta: ((?:\d+ days?, )?[\d:]+)(.*)'
)
_SHOWN = re.compile(r'\b(loss|gor_w_task|gor_w_kd): (\S+)')
_WARNING = re.compile(r' - WARNING - (.*)')
# mmengine says these in every run, and nobody needs to act on them.
_USUAL = ('FileClient', 'HardDiskBackend', '`metrics` is an empty dict')


def condense(line: str) -> str | None:
    """The part of a log line that a user wants to see, None if there is none.

    Example:
        >>> condense('Epoch(train) [1][20/37] lr: 1e-3 eta: 0:01:02 '
        ...          'time: 0.3 loss: 1.2 loss_cls: 0.8')
        'epoch [1][20/37]  loss 1.2  eta 0:01:02'
        >>> condense('Epoch(val) [1][50/72] eta: 0:00:03  time: 0.1')
        'evaluation [1][50/72]  eta 0:00:03'
    """
    warning = _WARNING.search(line)
    if warning and not any(usual in line for usual in _USUAL):
        return f'warning: {warning[1]}'
    found = _PROGRESS.search(line)
    if found is None:
        return None
    unit, loop, place, eta, rest = found.groups()
    what = unit.lower() if loop == 'train' else 'evaluation'
    values = [f'{name} {value}' for name, value in _SHOWN.findall(rest)]
    place = place.replace(' ', '')
    return '  '.join([f'{what} {place}', *values, f'eta {eta}'])


class LogFollower:
    """Reads a log while another process writes it.

    Attributes:
        exists (bool): The log was there at the last :meth:`read`.
        progress (str): Its last line about progress, condensed.

    Args:
        log (Path): Need not exist yet.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.exists = False
        self.progress = ''
        self._position = 0

    def read(self) -> list[str]:
        """Read what came since the last call; give its warnings."""
        self.exists = self.log.is_file()
        if not self.exists:
            return []
        if self.log.stat().st_size < self._position:  # written anew
            self._position = 0
        with self.log.open('rb') as file:
            file.seek(self._position)
            content = file.read()
        content = content[: content.rfind(b'\n') + 1]
        self._position += len(content)
        warnings = []
        for line in content.decode(errors='replace').splitlines():
            short = condense(line)
            if short and short.startswith('warning'):
                warnings.append(short)
            elif short:
                self.progress = short
        return list(dict.fromkeys(warnings))


class Estimates:
    """Times of runs, after the most alike one that ended last.

    Args:
        records (Iterable[Record]): In the order in which they ended.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.rates: dict[tuple[str, ...], float] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Learn from a run that ended."""
        if record.status == DONE and record.wall_s is not None:
            for alike in _alike(record):
                self.rates[alike] = record.wall_s / (record.epochs or 1)

    def seconds(self, run: Run) -> float | None:
        """The time of a whole run, from the seconds per epoch of one with the
        same data, arm and bits, or else the same data; None if there is
        none."""
        rates = [self.rates.get(alike) for alike in _alike(run)]
        known = [rate for rate in rates if rate is not None]
        return known[0] * (run.epochs or 1) if known else None

    def left(self, runs: dict[Run, float], at_a_time: int) -> str:
        """The time until all are done, in words.

        Args:
            runs (dict[Run, float]): Seconds since each was started, 0 for
                those that wait.
            at_a_time (int): The number of runs at the same time.
        """
        total = [(self.seconds(run), past) for run, past in runs.items()]
        known = [max(t - past, 0) for t, past in total if t is not None]
        unknown = len(total) - len(known)
        time = duration(sum(known) / at_a_time)
        if not unknown:
            return f'{time} left'
        if not known:
            return f'{unknown} left, time not known yet'
        return f'more than {time} left, {unknown} not known yet'


def _alike(run: Run | Record) -> list[tuple[str, ...]]:
    """From the most alike on; a calibration takes no epoch's time."""
    data, arm, bits, _ = run.key
    kind = 'calibration' if run.epochs == 0 else 'training'
    return [(kind, data, arm, bits), (kind, data)]


def duration(seconds: float) -> str:
    """'45 s', '12 min' or '3 h 05 min'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 90:
        return f'{minutes} min'
    return f'{minutes // 60} h {minutes % 60:02d} min'


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
