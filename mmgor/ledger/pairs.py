"""Which runs of a ledger are compared with which."""

from collections.abc import Iterable

from .plan import FLOAT
from .records import DONE, Record
from .stats import Difference, paired_difference

#: Data and bits.
Group = tuple[str, str]


def groups(records: Iterable[Record]) -> list[Group]:
    """Data and bits of the records: float first, then by number of bits."""
    found = {(record.data, record.bits) for record in records}
    return sorted(found, key=lambda g: (g[0], bits_order(g[1])))


def bits_order(bits: str) -> tuple:
    """Sort key: float, W2A2, W4A4, W16A16."""
    digits = ''.join(c if c.isdigit() else ' ' for c in bits).split()
    return bits != FLOAT, [int(number) for number in digits], bits


def in_group(records: Iterable[Record], group: Group) -> list[Record]:
    """The records with this data and these bits."""
    return [r for r in records if (r.data, r.bits) == group]


def runs_of(
    records: Iterable[Record], group: Group, arm: str
) -> dict[int, Record]:
    """Seed -> an arm's finished run."""
    return {
        record.seed: record
        for record in in_group(records, group)
        if record.arm == arm and record.status == DONE
    }


def values_of(runs: dict[int, Record]) -> dict[int, float]:
    """Seed -> mAP in per cent."""
    return {
        seed: 100 * run.mAP
        for seed, run in runs.items()
        if run.mAP is not None
    }


def reference_runs(
    records: list[Record], group: Group, reference: str
) -> dict[int, Record]:
    """The reference arm's runs at the same bits, or else in float."""
    same = runs_of(records, group, reference)
    return same or runs_of(records, (group[0], FLOAT), reference)


def difference(
    runs: dict[int, Record], others: dict[int, Record]
) -> Difference | None:
    """Of mAP in per cent, over the seeds that both have."""
    return paired_difference(values_of(runs), values_of(others))


def unlike(runs: dict[int, Record], others: dict[int, Record]) -> list[str]:
    """What is not the same in pairs that should differ in the arm only.

    Args:
        runs (dict[int, Record]): Seed to an arm's run.
        others (dict[int, Record]): Seed to the reference arm's.

    Returns:
        list[str]: 'device (seeds 1, 2)', 'commit (seeds 1)' or 'weights of
        <run> (seeds 1)' where both started from, or learned from, a run that
        was trained again between them.
    """
    found: dict[str, list[str]] = {}
    for seed in sorted(set(runs) & set(others)):
        one, other = runs[seed], others[seed]
        what = ['device'] if one.device != other.device else []
        what += ['commit'] if one.commit != other.commit else []
        what += [
            f'weights of {name}'
            for name in sorted(set(one.parents) & set(other.parents))
            if one.parents[name] != other.parents[name]
        ]
        for each in what:
            found.setdefault(each, []).append(str(seed))
    return [f'{what} (seeds {", ".join(s)})' for what, s in found.items()]
