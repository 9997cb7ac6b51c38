"""Bits within a budget, against all possible assignments."""

from itertools import product

import numpy as np
import pytest

from mmgor.bit_search.assignment import assign_bits, lower_hull
from mmgor.bit_search.search import by_mean_bits
from mmgor.quantization.sensitivity import Sensitivity

CHOICES = (2, 3, 4, 6, 8)


def falling_costs(rng, count):
    """Costs that fall by a factor of about 4 per bit."""
    start = rng.lognormal(0, 2, count)
    return [
        {b: float(s * 4.0**-b * rng.uniform(0.8, 1.2)) for b in CHOICES}
        for s in start
    ]


@pytest.mark.parametrize('seed', range(5))
def test_as_good_as_the_best_but_for_the_last_step(seed):
    rng = np.random.default_rng(seed)
    costs = falling_costs(rng, 5)
    counts = rng.integers(1, 50, 5).tolist()

    def price(bits):
        return sum(b * n for b, n in zip(bits, counts))

    def cost(bits):
        return sum(one[b] for one, b in zip(costs, bits))

    for mean in (2.5, 4.0, 6.5):
        found = assign_bits(costs, counts, mean)
        room = mean * sum(counts)
        assert price(found) <= room
        # The relaxed problem bounds what one more step could have saved.
        less = room - 6 * max(counts)
        affordable = [
            b for b in product(CHOICES, repeat=5) if price(b) <= less
        ]
        if affordable:
            assert cost(found) <= min(map(cost, affordable)) + 1e-12


def test_equal_counts_have_the_exact_optimum():
    costs = [{2: 4.0, 3: 1.0, 4: 0.2}, {2: 9.0, 3: 3.0, 4: 1.0}]
    best = min(
        product((2, 3, 4), repeat=2),
        key=lambda b: (sum(b) > 6) * 1e9 + costs[0][b[0]] + costs[1][b[1]],
    )
    assert assign_bits(costs, [7, 7], 3.0) == [*best] == [3, 3]


def test_a_large_budget_buys_all_that_helps():
    costs = [{2: 1.0, 4: 0.5, 8: 0.5}, {2: 1.0, 4: 2.0, 8: 0.0}]
    assert assign_bits(costs, [1, 1], 8.0) == [4, 8]


def test_less_than_the_fewest_bits_is_refused():
    with pytest.raises(ValueError, match=r'at least 2\.00 bits on average'):
        assign_bits([{2: 1.0, 4: 0.0}], [5], 1.5)


def test_the_hull_has_no_step_that_is_worse_than_a_longer_one():
    assert lower_hull({2: 8.0, 3: 7.9, 4: 0.0}) == [2, 4]
    assert lower_hull({2: 8.0, 3: 2.0, 4: 0.0}) == [2, 3, 4]


def test_no_tensor_has_two_bits_from_a_mean_of_four_on():
    """The first one loses nothing, and would get 2 bits."""
    costs = dict.fromkeys(range(2, 9), 0.0), {b: 4.0**-b for b in range(2, 9)}
    found = [
        Sensitivity(name, 'w_bits', 10, cost)
        for name, cost in zip(('easy', 'hard'), costs)
    ]
    for mean, bits in ((4, [3, 5]), (3.5, [2, 5]), (6, [3, 8]), (2, [2, 2])):
        chosen = by_mean_bits(found, mean, ['w_bits'])
        assert [chosen[n]['w_bits'] for n in ('easy', 'hard')] == bits
