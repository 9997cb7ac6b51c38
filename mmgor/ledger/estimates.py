"""How long it will take, from what is finished."""

from collections.abc import Iterable
from statistics import mean

from .records import DONE, Record
from .runs import Key, Run


class Estimates:
    """Times of runs, after the most alike ones that are done.

    Args:
        records (Iterable[Record]): What is recorded.
        device (str): Times on other devices say nothing here.
    """

    def __init__(self, records: Iterable[Record], device: str) -> None:
        self.rates: dict[tuple[str, ...], list[float]] = {}
        for record in records:
            if record.status == DONE and record.device == device:
                self._add(record)

    def _add(self, record: Record) -> None:
        assert record.wall_s is not None
        for alike in _alike(record.key, record.epochs):
            rate = record.wall_s / max(record.epochs, 1)
            self.rates.setdefault(alike, []).append(rate)

    def seconds(self, run: Run) -> float | None:
        """Of a whole run: seconds an epoch of runs with the same data, arm
        and bits, or else data and arm, or else data; None if there are
        none."""
        for alike in _alike(run.key, run.epochs):
            if alike in self.rates:
                return mean(self.rates[alike]) * max(run.epochs, 1)
        return None

    def left(
        self, waiting: Iterable[Run], running: dict[Run, float], workers: int
    ) -> str:
        """Time until all are done, in words.

        Args:
            waiting (Iterable[Run]): Not started.
            running (dict[Run, float]): Seconds since they were started.
            workers (int): How many run at the same time.
        """
        waits = [self.seconds(run) for run in waiting]
        total = [(self.seconds(run), past) for run, past in running.items()]
        known = sum(t for t in waits if t is not None) + sum(
            max(t - past, 0) for t, past in total if t is not None
        )
        unknown = waits.count(None) + [t for t, _ in total].count(None)
        if not unknown:
            return f'{duration(known / workers)} left'
        if not known:
            return f'{unknown} left, time not known yet'
        return (
            f'more than {duration(known / workers)} left, {unknown} not '
            'known yet'
        )


def _alike(key: Key, epochs: int) -> list[tuple[str, ...]]:
    """From the most alike on; a calibration takes no epoch's time."""
    data, arm, bits, _ = key
    kind = 'training' if epochs else 'calibration'
    return [(kind, data, arm, bits), (kind, data, arm), (kind, data)]


def duration(seconds: float) -> str:
    """'45 s', '12 min' or '3 h 05 min'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 90:
        return f'{minutes} min'
    return f'{minutes // 60} h {minutes % 60:02d} min'
