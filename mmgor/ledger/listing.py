"""A plan as a list, without running it."""

from .estimates import Estimates, duration
from .plan import Plan
from .records import Record
from .runs import Key, Run
from .schedule import describe, open_runs


def plan_lines(
    plan: Plan, runs: list[Run], records: dict[Key, Record], device: str
) -> list[str]:
    """State of every run and how long the open ones may take.

    Args:
        plan (Plan): The plan.
        runs (list[Run]): Of it, those chosen.
        records (dict): What is recorded.
        device (str): Whose times count.
    """
    estimates = Estimates(records.values(), device)
    waiting = open_runs(runs, records)
    lines = []
    for run in runs:
        if run not in waiting:
            lines.append(describe(records[run.key]))
            continue
        needs = [p.name for p in run.parents if p in waiting]
        state = f'waits for {", ".join(needs)}' if needs else 'to be run'
        seconds = estimates.seconds(run)
        time = 'time not known' if seconds is None else duration(seconds)
        lines.append(f'{run.name}: {state}, {time}')
    done = len(runs) - len(waiting)
    left = estimates.left(waiting, {}, plan.workers)
    lines.append(
        f'{done} of {len(runs)} ended; {left} on {device}, '
        f'{plan.workers} at a time'
    )
    others = len(set(records) - {run.key for run in runs})
    if others:
        lines.append(
            f'{others} recorded runs are not among these and are left alone'
        )
    return lines
