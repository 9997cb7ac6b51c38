"""Integers of a few bits, packed without gaps."""

from math import ceil

import numpy as np
import pytest

from mmgor.deploy.packing.bits import pack_bits, unpack_bits


def test_bits_by_hand():
    # 3 = 011, -3 = 101, 1 = 001, -1 = 111, 2 = 010, lowest bit first:
    # 110 101 10 | 0 111 010 and a 0: 1 + 2 + 8 + 32 + 64, 2 + 4 + 8 + 32
    packed = pack_bits(np.array([3, -3, 1, -1, 2]), 3)
    assert list(packed) == [107, 46]
    assert unpack_bits(packed, 3, 5).tolist() == [3, -3, 1, -1, 2]
    assert list(pack_bits(np.array([1, -1, -2, 0, 1]), 2)) == [45, 1]
    assert list(pack_bits(np.array([-127, 127]), 8)) == [129, 127]


@pytest.mark.parametrize('bits', range(2, 9))
@pytest.mark.parametrize('count', [1, 7, 8, 1001])
def test_bits_come_back(bits, count):
    generator = np.random.default_rng(0)
    highest = 2 ** (bits - 1)
    integers = generator.integers(-highest, highest, count)
    packed = pack_bits(integers, bits)
    assert len(packed) == ceil(count * bits / 8)
    assert (unpack_bits(packed, bits, count) == integers).all()


@pytest.mark.parametrize('value', [4, -5])
def test_integers_that_do_not_fit_are_refused(value):
    with pytest.raises(ValueError, match=f'3 bits, -4 to 3, got {value}'):
        pack_bits(np.array([0, value]), 3)
