"""Train a table of arms, bits, seeds and data sets; keep what is finished.

python tools/ledger.py docs/plans/bccd_screen.yaml --data bccd=FOLDER \\
    --weights mobilenetv2=FILE yolox=FILE [--dry-run] [--only ARM ...] \\
    [--bits BITS ...] [--seeds N ...]

A run that is recorded, done or failed, never runs again; to repeat one,
remove its line from the results. What stops the ledger (Ctrl-C, too) loses the
runs in flight and no others. How a finished run is told: mmgor/ledger/runs.py.
"""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import _common  # noqa: F401

from mmgor.ledger.changes import check_parents_same, check_unchanged
from mmgor.ledger.environment import device
from mmgor.ledger.listing import plan_lines
from mmgor.ledger.plan import Plan, read_plan
from mmgor.ledger.records import DONE, Record, locked, read_records
from mmgor.ledger.runs import Key, Run, build_runs
from mmgor.ledger.schedule import Schedule, check_files, select_runs

#: Between two lines about the runs in flight, where no terminal shows them.
_FILE_STATUS_S = 60.0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('plan', type=Path, help='YAML file')
    for name, what in (('data', 'FOLDER'), ('weights', 'FILE')):
        parser.add_argument(
            f'--{name}',
            type=name_and_path,
            nargs='+',
            action='extend',
            default=[],
            metavar=f'NAME={what}',
            help=f'for the names that the plan has under {name}',
        )
    parser.add_argument(
        '--dry-run', action='store_true', help='list the runs, train none'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='ARM',
        help='these arms, and what they need',
    )
    parser.add_argument(
        '--bits',
        nargs='+',
        metavar='BITS',
        help="at these bits ('float': arms without), and what they need",
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        metavar='N',
        help="with these seeds in place of the plan's",
    )
    args = parser.parse_args()
    for what in ('data', 'weights'):
        names = [name for name, _ in getattr(args, what)]
        if len(set(names)) < len(names):
            parser.error(f'--{what} expected each name once, got {names}')
    return args


def name_and_path(text: str) -> tuple[str, Path]:
    """'bccd=data/bccd' -> ('bccd', Path('data/bccd'))."""
    name, equals, path = text.partition('=')
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f'expected NAME=PATH, got {text!r}')
    return name, Path(path)


class Terminal:
    """Lines that stay, and one that changes: on a terminal below them, in a
    file as a line of its own now and then."""

    def __init__(self) -> None:
        self._written = time.monotonic()

    def tell(self, line: str) -> None:
        clear = '\r\x1b[K' if sys.stdout.isatty() else ''
        print(clear + line, flush=True)

    def status(self, line: str) -> None:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f'\r\x1b[K{line[:width]}', end='', flush=True)
            return
        now = time.monotonic()
        if now - self._written >= _FILE_STATUS_S:
            self._written = now
            print(line, flush=True)


def interrupt_by_signals(schedule: Schedule) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end the trainings in flight.

    An exception from a handler, in the midst of starting or of ending them,
    could leave one alive.
    """

    def interrupt(*_: Any) -> None:
        schedule.interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)


def checked_records(
    plan: Plan, runs: list[Run], only: list[str] | None
) -> dict[Key, Record]:
    """What is recorded, if the plan can go on from it."""
    records = read_records(plan.results)
    check_unchanged(plan, records, only)
    check_parents_same(runs, records, plan.runs_folder)
    check_files(runs, records, plan.runs_folder)
    return records


def train(plan: Plan, runs: list[Run], only: list[str] | None) -> int:
    """Run what is open; the exit status of the program."""
    terminal = Terminal()
    with locked(plan.results) as lock:
        records = checked_records(plan, runs, only)
        schedule = Schedule(
            plan, runs, records, lock, terminal.tell, terminal.status
        )
        interrupt_by_signals(schedule)
        try:
            schedule.run()
        except KeyboardInterrupt:
            return 130
    ended = schedule.records
    bad = [run.name for run in runs if ended[run.key].status != DONE]
    terminal.tell(f'{len(runs) - len(bad)} of {len(runs)} runs done')
    if bad:
        terminal.tell(
            f'without a result: {", ".join(bad)}. Their reasons are in '
            f'{plan.results}; to run one again, remove its line.'
        )
    # A run that was removed and trained again here may have students.
    check_parents_same(runs, ended, plan.runs_folder)
    return bool(bad)


def main() -> int:
    args = parse_args()
    plan = read_plan(
        args.plan, dict(args.data), dict(args.weights), args.seeds
    )
    runs = select_runs(build_runs(plan), args.only, args.bits)
    if not args.dry_run:
        return train(plan, runs, args.only)
    records = checked_records(plan, runs, args.only)
    print('\n'.join(plan_lines(plan, runs, records, device())))
    return 0


if __name__ == '__main__':
    sys.exit(main())
