"""Which tensor gets how many bits: a knapsack with several choices each."""

from collections.abc import Mapping, Sequence


def assign_bits(
    costs: Sequence[Mapping[int, float]],
    counts: Sequence[int],
    mean_bits: float,
) -> list[int]:
    """Bits that keep the sum of the costs low within a budget.

    All start with the fewest bits. The step up that saves most per bit is
    taken again and again, as long as the budget allows one. Steps follow each
    tensor's lower convex hull, so the result is the best one up to the last
    step (the greedy solution of the relaxed knapsack problem).

    Args:
        costs (Sequence[Mapping[int, float]]): For each tensor, bits -> cost.
        counts (Sequence[int]): Numbers in each tensor.
        mean_bits (float): Most bits per number, on average over all numbers.

    Returns:
        list[int]: Bits of each tensor.

    Raises:
        ValueError: If the fewest bits of all are above the budget.

    Example:
        The second tensor gains more by bits; it is as large as the first.

        >>> costs = [{2: 1.0, 4: 0.5, 8: 0.0}, {2: 9.0, 4: 1.0, 8: 0.0}]
        >>> assign_bits(costs, [10, 10], 3.0)
        [2, 4]
    """
    hulls = [lower_hull(one) for one in costs]
    steps = [0] * len(hulls)
    left = mean_bits * sum(counts) - sum(
        hull[0] * n for hull, n in zip(hulls, counts)
    )
    if left < 0:
        least = mean_bits - left / sum(counts)
        raise ValueError(
            f'expected a budget of at least {least:.2f} bits on average, got '
            f'{mean_bits:g}.'
        )
    while True:
        best, gain = None, 0.0
        for i, (hull, n) in enumerate(zip(hulls, counts)):
            if steps[i] + 1 == len(hull):
                continue
            now, then = hull[steps[i] : steps[i] + 2]
            price = (then - now) * n
            saved = (costs[i][now] - costs[i][then]) / max(1, price)
            if price <= left and (best is None or saved > gain):
                best, gain = i, saved
        if best is None:
            return [hull[step] for hull, step in zip(hulls, steps)]
        now, then = hulls[best][steps[best] : steps[best] + 2]
        left -= (then - now) * counts[best]
        steps[best] += 1


def lower_hull(costs: Mapping[int, float]) -> list[int]:
    """The bits whose costs are on the lower convex hull, ascending.

    Bits that cost more than fewer bits are left out.

    Example:
        >>> lower_hull({2: 9.0, 3: 8.5, 4: 1.0, 8: 2.0})
        [2, 4]
    """
    hull: list[int] = []
    for bits in sorted(costs):
        if hull and costs[bits] >= costs[hull[-1]]:
            continue
        while len(hull) > 1 and _above(costs, hull[-2], hull[-1], bits):
            hull.pop()
        hull.append(bits)
    return hull


def _above(costs: Mapping[int, float], a: int, b: int, c: int) -> bool:
    """Whether b is on or above the line from a to c."""
    slope = (costs[c] - costs[a]) / (c - a)
    return costs[b] >= costs[a] + slope * (b - a)
