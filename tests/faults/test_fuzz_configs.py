"""Changed configs train or name what is wrong; see
benchmarks/faults/fuzz_configs.py."""

import pytest

from benchmarks.faults.fuzz_configs import outcome
from benchmarks.faults.toy_student import save_teacher


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher'))


@pytest.mark.parametrize('seed', range(6))
def test_a_changed_config(teacher, tmp_path, seed):
    kind, story = outcome(seed, teacher, tmp_path)
    assert kind in ('trained', 'refused'), story
