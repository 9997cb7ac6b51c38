"""A broken number is dropped and said, or named; see
benchmarks/faults/broken_numbers.py."""

import pytest

from benchmarks.faults import broken_numbers
from benchmarks.faults.toy_student import save_teacher


@pytest.fixture(scope='module')
def spec(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.mark.parametrize(
    'place, value, outcome',
    [
        ('pixels', 'nan', 'dropped'),
        ('loss_scale', 'inf', 'stopped'),
    ],
)
def test_a_broken_number(spec, tmp_path, place, value, outcome):
    make = getattr(broken_numbers, place)
    value = broken_numbers.VALUES[value]
    assert broken_numbers.run(make, value, 0, spec, tmp_path) == outcome
