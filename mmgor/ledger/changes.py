"""What changed under an old name is refused."""

import json
from functools import cache
from pathlib import Path

from .plan import Plan
from .records import DONE, SKIPPED, Record
from .runs import Key, Run, checkpoint_hash, recorded_runs

_SHOWN_CHANGES = 10


def check_unchanged(
    plan: Plan, records: dict[Key, Record], arms: list[str] | None = None
) -> None:
    """Refuse runs whose config is not the one their name was recorded with.

    Also those of recorded seeds that the plan no longer has, and of bits that
    an arm no longer has: the report takes all runs of an arm for the same.

    Args:
        plan (Plan): The plan.
        records (dict[Key, Record]): What is recorded.
        arms (list[str], optional): Look at these and what they need only.

    Raises:
        ValueError: Naming the runs, and what changed in the first.
    """
    results = plan.results
    looked_at = list(plan.arms if arms is None else arms)
    for name in looked_at:  # also over those that are added here
        needs = plan.arms[name].needs
        looked_at += [need for need in needs if need not in looked_at]
    ended = [
        key
        for key, record in records.items()
        if key[1] in looked_at and record.status != SKIPPED
    ]
    changed = [
        run
        for run in recorded_runs(plan, ended)
        if records[run.key].config_hash != run.hash
    ]
    if not changed:
        return
    first = changed[0]
    lines = [
        f'{first.name}: {results} has it with config_hash '
        f'{records[first.key].config_hash}, the plan now gives {first.hash}.',
        *_changes(first, results),
    ]
    if len(changed) > 1:
        others = ', '.join(run.name for run in changed[1:6])
        more = ', ...' if len(changed) > 6 else ''
        lines.append(f'{len(changed) - 1} more changed: {others}{more}')
    names = list(dict.fromkeys(run.key[1] for run in changed))
    if len(names) > 1:
        lines.append(
            'If that is not what you meant: check --data, --weights, and the '
            "plan's data, bits and epochs, which all arms share."
        )
    lines.append(
        f'Rename {names} in the plan to run them beside the old ones, or '
        f'remove their lines from {results} to run them again in their place.'
    )
    raise ValueError('\n'.join(lines))


def check_parents_same(
    runs: list[Run], records: dict[Key, Record], folder: Path
) -> None:
    """Refuse results of weights that were trained again since.

    Runs without a folder here were trained elsewhere, from other weights, and
    are not looked at.

    Args:
        runs (list[Run]): Of a plan.
        records (dict[Key, Record]): What is recorded.
        folder (Path): With one folder a run.

    Raises:
        ValueError: Naming the runs, and what the first one needs.
    """
    now = cache(lambda parent: checkpoint_hash(parent, folder))
    stale = [
        (run, parent)
        for run in runs
        for parent in run.parents
        if run.key in records
        and records[run.key].status == DONE
        and (folder / run.name).is_dir()
        and (folder / parent.name / parent.checkpoint).is_file()
        and records[run.key].parents.get(parent.name) != now(parent)
    ]
    if not stale:
        return
    run, parent = stale[0]
    names = ', '.join(dict.fromkeys(child.name for child, _ in stale))
    raise ValueError(
        f'{run.name} is recorded with the weights '
        f'{records[run.key].parents.get(parent.name)} of {parent.name}, which '
        f'now has {now(parent)}. Remove the lines of {names} from the results '
        f'to run them again, or put the old {parent.checkpoint} back.'
    )


def _changes(run: Run, results: Path) -> list[str]:
    file = results.with_suffix('') / run.name / 'hashed.json'
    if not file.is_file():
        return [f'  (what changed is not known here: no {file})']
    old, new = _flat(json.loads(file.read_text())), _flat(run.hashed)
    lines = [
        f'  {key}: {old.get(key, "not set")} -> {new.get(key, "not set")}'
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    rest = len(lines) - _SHOWN_CHANGES
    more = [f'  ... and {rest} more'] if rest > 0 else []
    return lines[:_SHOWN_CHANGES] + more


def _flat(value: object, prefix: str = '') -> dict[str, str]:
    """Path of each leaf -> its JSON."""
    if isinstance(value, dict) and value:
        parts = value.items()
    elif isinstance(value, list) and value:
        parts = {str(i): part for i, part in enumerate(value)}.items()
    else:
        return {prefix: json.dumps(value)}
    flat = {}
    for key, part in parts:
        flat.update(_flat(part, f'{prefix}.{key}' if prefix else str(key)))
    return flat
