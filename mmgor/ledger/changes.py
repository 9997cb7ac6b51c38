"""A changed config under an old name is refused."""

import json
from pathlib import Path

from .records import SKIPPED, Record
from .runs import Key, Run

_SHOWN_CHANGES = 10


def check_unchanged(
    runs: list[Run], records: dict[Key, Record], results: Path
) -> None:
    """Refuse runs whose config is not the one their name was recorded with.

    Args:
        runs (list[Run]): Those that others need first.
        records (dict[Key, Record]): What is recorded.
        results (Path): Where.

    Raises:
        ValueError: Naming the runs, and what changed in the first.
    """
    changed = [
        run
        for run in runs
        if run.key in records
        and records[run.key].status != SKIPPED
        and records[run.key].config_hash != run.hash
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
    lines.append(
        f'Rename the arm {first.key[1]!r} in the plan to run it beside the '
        f'old one, or remove its lines from {results} to run it again in its '
        'place.'
    )
    raise ValueError('\n'.join(lines))


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
