"""Train a plan's arms, and compare them.

python -m experiments run experiments/plans/bccd_screen.yaml \\
    --data bccd=FOLDER --weights mobilenetv2=FILE yolox=FILE [--dry-run]
python -m experiments report work_dirs/experiments/bccd_screen.jsonl \\
    --reference qat --out report.md

A run that is recorded, done or failed, never runs again; to repeat one,
remove its line from the results. What stops the command (Ctrl-C, too) loses
the runs in flight and no others. With RAY_ADDRESS set, the runs are spread
over that Ray cluster.
"""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from .changes import check_unchanged
from .engine import Engine, locked, open_runs
from .filling import last_scheduler
from .plan import WORK_DIR, read_plan
from .progress import Estimates, describe, duration
from .records import DONE, Record, read_records
from .report import write_report
from .runs import Key, Run, build_runs, select_runs


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m experiments',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    run = commands.add_parser('run', help='train what is open of a plan')
    run.add_argument('plan', type=Path, help='YAML file')
    for name, what in (('data', 'FOLDER'), ('weights', 'FILE')):
        run.add_argument(
            f'--{name}',
            type=name_and_path,
            nargs='+',
            action='extend',
            default=[],
            metavar=f'NAME={what}',
            help=f'for the names that the plan has under {name}',
        )
    run.add_argument(
        '--work-dir', type=Path, default=WORK_DIR, help=f'default: {WORK_DIR}'
    )
    run.add_argument(
        '--dry-run', action='store_true', help='list the runs, train none'
    )
    run.add_argument('--arms', nargs='+', help='and what they need')
    run.add_argument('--bits', nargs='+', help="'float': arms without")
    run.add_argument('--seeds', type=int, nargs='+', help="not the plan's")
    report = commands.add_parser('report', help='tables and plots of results')
    report.add_argument('results', type=Path, help='.jsonl of a run')
    report.add_argument(
        '--reference', help='arm that the others are compared with by seed'
    )
    report.add_argument('--out', type=Path, required=True, help='.md to write')
    return parser.parse_args(argv)


def name_and_path(text: str) -> tuple[str, Path]:
    """'bccd=data/bccd' -> ('bccd', Path('data/bccd'))."""
    name, equals, path = text.partition('=')
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f'expected NAME=PATH, got {text!r}')
    return name, Path(path)


def tell(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def list_plan(runs: list[Run], records: dict[Key, Record]) -> None:
    """Tell the schedule of every arm, the state of every run, and the time
    that the open ones may take."""
    tell(
        'Schedules (epochs set max_epochs and val_interval, and end and T_max '
        'of the last scheduler; options set the rest):'
    )
    for arm, run in {run.key[1]: run for run in runs}.items():
        loop, last = run.config['train_cfg'], last_scheduler(run.config)
        length = f'{run.epochs} epochs'
        if run.epochs is None:
            length = f'{loop["max_iters"]} iterations'
        tell(f'  {arm}: {length}, {dict(last)}')
    estimates, waiting = Estimates(records.values()), open_runs(runs, records)
    for run in runs:
        if run not in waiting:
            tell(describe(records[run.key]))
            continue
        needs = [p.name for p in run.parents if p in waiting]
        state = f'waits for {", ".join(needs)}' if needs else 'to be run'
        seconds = estimates.seconds(run)
        time = 'time not known' if seconds is None else duration(seconds)
        tell(f'{run.name}: {state}, {time}')
    left = estimates.left(dict.fromkeys(waiting, 0.0), 1)
    ended = len(runs) - len(waiting)
    tell(f'{ended} of {len(runs)} ended; {left}, one run at a time')


def run(args: argparse.Namespace) -> int:
    """Train what is open, or list it; the exit status of the program."""
    plan = read_plan(
        args.plan,
        dict(args.data),
        dict(args.weights),
        args.seeds,
        args.work_dir,
    )
    runs = select_runs(build_runs(plan), args.arms, args.bits)
    # A dry run may look on while another start trains.
    with nullcontext() if args.dry_run else locked(plan.results):
        records = read_records(plan.results)
        check_unchanged(plan, runs, records)
        if args.dry_run:
            list_plan(runs, records)
            return 0
        engine = Engine(plan, runs, records, tell)
        try:
            engine.run()
        except KeyboardInterrupt:
            return 130
    done = {key for key, r in engine.records.items() if r.status == DONE}
    bad = [run.name for run in runs if run.key not in done]
    tell(f'{len(runs) - len(bad)} of {len(runs)} runs done')
    if bad:
        tell(
            f'without a result: {", ".join(bad)}. Their reasons are in '
            f'{plan.results}; to run one again, remove its line.'
        )
    # A run that was removed and trained again here may have students.
    check_unchanged(plan, runs, engine.records)
    return bool(bad)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.command == 'run':
        return run(args)
    for path in write_report(args.results, args.reference, args.out):
        tell(str(path))
    return 0


if __name__ == '__main__':
    sys.exit(main())
