"""A changed config under an old name is refused."""

import json
from dataclasses import replace

from .plan import Plan
from .records import DONE, SKIPPED, Record
from .runs import Key, Run, build_runs
from .training import checkpoint_hash

_SHOWN_CHANGES = 10


def changed_runs(
    plan: Plan, runs: list[Run], records: dict[Key, Record]
) -> list[Run]:
    """Runs whose config is not the one their name was recorded with: those
    of the arms of ``runs`` with all recorded seeds, also with those that are
    not run now, since the report takes all runs of an arm for the same."""
    arms = {run.key[1] for run in runs}
    ended = {
        key: record.config_hash
        for key, record in records.items()
        if key[1] in arms and record.status != SKIPPED
    }
    seeds = {*plan.seeds, *(key[3] for key in ended)}
    return [
        run
        for run in build_runs(replace(plan, seeds=tuple(sorted(seeds))))
        if ended.get(run.key, run.hash) != run.hash
    ]


def check_unchanged(
    plan: Plan, runs: list[Run], records: dict[Key, Record]
) -> None:
    """Refuse :func:`changed_runs`, and results of weights that were trained
    again since.

    Raises:
        ValueError: Naming the runs, and the changes of the first.
    """
    changed = changed_runs(plan, runs, records)
    if changed:
        first = changed[0]
        names = ', '.join(run.name for run in changed)
        lines = [
            f'{first.name}: {plan.results} has it with config_hash '
            f'{records[first.key].config_hash}, the plan now gives '
            f'{first.hash}.',
            *_changes(first, plan),
            f'Changed: {names}. If that is not what you meant: check --data, '
            "--weights, and the plan's bits and epochs, which arms share. To "
            'run them beside the old ones, rename the arms; to run them '
            f'again, remove their lines from {plan.results}.',
        ]
        raise ValueError('\n'.join(lines))
    folder = plan.runs_folder
    for run in runs:
        record = records.get(run.key)
        # Without a folder here it was trained elsewhere, from other weights.
        here = (folder / run.name).is_dir()
        for parent in run.parents if here and record else ():
            weights = folder / parent.name / parent.checkpoint
            old = record.parents.get(parent.name)
            if (
                record.status == DONE
                and weights.is_file()
                and checkpoint_hash(parent, folder) != old
            ):
                raise ValueError(
                    f'{weights} was trained again since {run.name} used it '
                    f'(SHA-256 {old}...). Remove the line of {run.name} from '
                    f'{plan.results} to run it again, or put the old weights '
                    'back.'
                )


def _changes(run: Run, plan: Plan) -> list[str]:
    file = plan.runs_folder / run.name / 'hashed.json'
    if not file.is_file():
        return [f'  (its former config is not known here: no {file})']
    old, new = _flat(json.loads(file.read_text())), _flat(run.hashed)
    lines = [
        f'  {key}: {old.get(key, "not set")} -> {new.get(key, "not set")}'
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    more = [f'  ... and {len(lines) - _SHOWN_CHANGES} more']
    return (
        lines
        if len(lines) <= _SHOWN_CHANGES
        else lines[:_SHOWN_CHANGES] + more
    )


def _flat(value: object, prefix: str = '') -> dict[str, str]:
    """Path of each leaf -> its JSON."""
    if isinstance(value, list):
        value = {str(i): part for i, part in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {prefix: json.dumps(value)}
    flat = {}
    for key, part in value.items():
        flat.update(_flat(part, f'{prefix}.{key}' if prefix else key))
    return flat
