"""Differences by seed, with intervals."""

from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Difference:
    """Of an arm to the reference, over the seeds that both have.

    Args:
        mean (float): In the metric's unit.
        half_width (float, optional): Of the confidence interval around it;
            None for one pair.
        pairs (int): Seeds.
    """

    mean: float
    half_width: float | None
    pairs: int


def t_quantile(probability: float, freedom: int) -> float:
    """Where Student's t distribution reaches a probability.

    Args:
        probability (float): In (0, 1).
        freedom (int): Degrees of freedom, at least 1.
    """
    return float(student_t.ppf(probability, freedom))


def paired_difference(
    values: dict[int, float],
    reference: dict[int, float],
    level: float = 0.95,
) -> Difference | None:
    """Mean of the differences by seed, and Student's interval for it.

    Args:
        values (dict[int, float]): Seed to metric.
        reference (dict[int, float]): Likewise.
        level (float): Confidence, in (0, 1).

    Returns:
        Difference | None: None: no seed in common.
    """
    seeds = sorted(set(values) & set(reference))
    if not seeds:
        return None
    differences = [values[seed] - reference[seed] for seed in seeds]
    n = len(differences)
    if n == 1:
        return Difference(differences[0], None, 1)
    error = stdev(differences) / sqrt(n)
    half_width = t_quantile((1 + level) / 2, n - 1) * error
    return Difference(mean(differences), half_width, n)
