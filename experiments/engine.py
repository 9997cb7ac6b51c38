"""Trains a plan's runs on Ray, each after those that it needs."""

import logging
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

# Before ray is imported.
os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')

import ray
import torch
from filelock import FileLock, Timeout

from . import REPOSITORY
from .plan import Plan
from .progress import Estimates, LogFollower, describe
from .records import SKIPPED, Record, append_record
from .runs import Key, Run
from .training import TRAIN, clear_folder, train

#: Between two looks at the logs of the runs in flight.
_POLL_S = 0.5
_OBJECT_STORE_BYTES = 100 * 2**20
_ANSWER_S = 10.0


def open_runs(runs: list[Run], records: dict[Key, Record]) -> list[Run]:
    """Those without a final record. Skipped ones get another chance."""
    ended = {key for key, r in records.items() if r.status != SKIPPED}
    return [run for run in runs if run.key not in ended]


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Keep results for this process, until it ends.

    Raises:
        RuntimeError: If another process has them.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(results.with_name(f'{results.name}.lock'), timeout=0):
            yield
    except Timeout:
        raise RuntimeError(
            f'{results} is in use by another start of this plan; wait until '
            'it has ended, or end it.'
        ) from None


def check_address(address: str) -> None:
    """Refuse an address that nothing answers at: Ray itself tries for
    minutes.

    Args:
        address (str): HOST:PORT, ray://HOST:PORT, or a word such as 'auto',
            which is not checked.

    Raises:
        ConnectionError: If no connection can be made within 10 seconds.
    """
    host, colon, port = address.rpartition('://')[2].rpartition(':')
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip('[]'), port), _ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(
            f'expected a Ray cluster at RAY_ADDRESS={address}, got no answer '
            f'({error}). Start it with `ray start --head`, or `unset '
            'RAY_ADDRESS` to train on this machine.'
        ) from error


@contextmanager
def connected(plan: Plan) -> Iterator[None]:
    """A connection to Ray: to the cluster that ``RAY_ADDRESS`` names, or else
    to one of this machine alone, which ends with it.

    Ray ends all runs in flight with the connection, also when this process
    is killed.

    Raises:
        ConnectionError: If there is no cluster at ``RAY_ADDRESS``.
    """
    if ray.is_initialized():  # by the caller, who ends it
        yield
        return
    address = os.environ.get('RAY_ADDRESS') or 'local'
    check_address(address)
    workers = plan.workers or torch.cuda.device_count() or 1
    local = dict(
        num_cpus=workers * plan.threads,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
    )
    logging.getLogger('ray').setLevel(logging.ERROR)
    ray.init(
        address=address,
        log_to_driver=False,
        configure_logging=False,
        runtime_env=dict(env_vars=dict(PYTHONPATH=str(REPOSITORY))),
        **(local if address == 'local' else {}),
    )
    # After Ray, which has handlers of its own that abort.
    for name in ('SIGTERM', 'SIGHUP'):  # act as Ctrl-C does
        number = getattr(signal, name, None)
        # Ignored: as under nohup.
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        ray.shutdown()


class Engine:
    """Trains open runs and records them.

    Args:
        plan (Plan): Whose runs they are.
        runs (list[Run]): From :func:`experiments.runs.select_runs`.
        records (dict): The results so far; then, with new ones, an attribute.
        tell (Callable): Takes lines for the user.
        command (tuple[str, ...]): Program that takes a config file.
        progress_s (float): Seconds between two lines about a run.
    """

    def __init__(
        self,
        plan: Plan,
        runs: list[Run],
        records: dict[Key, Record],
        tell: Callable[[str], None],
        command: tuple[str, ...] = TRAIN,
        progress_s: float = 30.0,
    ) -> None:
        self.plan = plan
        self.total = len(runs)
        self.tell = tell
        self.command = command
        self.progress_s = progress_s
        self.before = records
        self.records = {
            k: r for k, r in records.items() if r.status != SKIPPED
        }
        self.estimates = Estimates(records.values())
        self.logs = {
            run: LogFollower(plan.runs_folder / run.name / 'train.log')
            for run in open_runs(runs, records)
        }
        self.started: dict[Run, float] = {}
        self.reported: dict[Run, float] = {}

    def run(self) -> None:
        """Until nothing is open. An exception ends the runs in flight; they
        are not recorded.

        Raises:
            FileExistsError: If the folder of a run holds other files.
        """
        if not self.logs:
            return
        for run in self.logs:  # else old logs would look like new ones
            clear_folder(self.plan.runs_folder / run.name)
        with connected(self.plan):
            pending = self._submit()
            try:
                while pending:
                    ready, _ = ray.wait(list(pending), timeout=_POLL_S)
                    self._look()
                    for ref in ready:
                        self._collect(pending.pop(ref), ref)
            finally:
                for ref, run in pending.items():
                    ray.cancel(ref, force=True)
                    if run in self.started:
                        self.tell(f'{run.name}: stopped, not recorded')

    def _submit(self) -> dict[ray.ObjectRef, Run]:
        facts = ray.cluster_resources()
        gpus = int('GPU' in facts)
        slots = facts.get('CPU', 0) // self.plan.threads
        self.at_a_time = int(min(slots, facts['GPU']) if gpus else slots) or 1
        # Ray tries again once where a machine is lost.
        task = ray.remote(
            num_cpus=self.plan.threads, num_gpus=gpus, max_retries=1
        )(train)
        # Workers know a run's config, not those of all arms.
        place = ray.put(replace(self.plan, arms={}))
        refs: dict[Key, ray.ObjectRef] = {}
        for run in self.logs:
            parents = [
                refs.get(parent.key) or self.records[parent.key]
                for parent in run.parents
            ]
            refs[run.key] = task.options(name=run.name).remote(
                run, place, self.command, *parents
            )
        return dict(zip(refs.values(), self.logs))

    def _look(self) -> None:
        """Tell which runs have started, and how far they are."""
        now = time.monotonic()
        for run, log in self.logs.items():
            warnings = log.read()
            if log.exists and run not in self.started:
                self.started[run] = self.reported[run] = now
                config = log.log.with_name('config.py')
                line = shlex.join(['python', 'tools/train.py', str(config)])
                log_file = shlex.quote(str(log.log))
                self.tell(f'{run.name} starts: {line} > {log_file}')
            for line in warnings:
                self.tell(f'{run.name}  {line}')
            if log.progress and now - self.reported[run] >= self.progress_s:
                self.reported[run] = now
                self.tell(f'{run.name}  {log.progress}; {self._left()}')

    def _collect(self, run: Run, ref: ray.ObjectRef) -> None:
        del self.logs[run]
        try:
            record = ray.get(ref)
        except ray.exceptions.RayError as error:
            reason = getattr(error, 'cause', error)
            self.tell(f'{run.name}: lost, not recorded: {reason}')
            return
        old = self.before.get(run.key)
        # A run that is skipped again for the same reason is no news.
        if old is None or replace(record, commit=old.commit) != old:
            append_record(self.plan.results, record)
        self.records[run.key] = record
        self.estimates.add(record)
        ended = self.total - len(self.logs)
        self.tell(f'[{ended}/{self.total}] {describe(record)}; {self._left()}')

    def _left(self) -> str:
        now = time.monotonic()
        past = {run: now - self.started.get(run, now) for run in self.logs}
        return self.estimates.left(past, self.at_a_time)
