"""Operators on integers, against hand-computed values."""

import pytest
import torch

from mmgor.deploy.integer_reference import operators as integer
from tests.support.integers import grid, ints


def test_convolution_pads_with_the_zero_point():
    x = ints(1, 2, 3, 4).view(1, 1, 2, 2)
    weight = torch.ones(1, 1, 3, 3, dtype=torch.int32)
    # The zero point 7 is outside of the integers 0 .. 4.
    got = integer.conv2d(x, weight, ints(100), torch.tensor(7), padding=1)
    # (1 + 2 + 3 + 4) - 4 * 7 + 100; the border adds nothing.
    assert got.flatten().tolist() == [82, 82, 82, 82]
    assert got.dtype == torch.int32


def test_convolution_groups_stride_dilation():
    x = torch.arange(50, dtype=torch.int32).view(1, 2, 5, 5)
    weight = ints(1, 0, 0, -2, 3, 0, 0, 1).view(2, 1, 2, 2)
    got = integer.conv2d(
        x,
        weight,
        ints(0, 5),
        ints(0, 1),
        stride=2,
        dilation=2,
        groups=2,
    )
    # Taps at (r, c) and (r + 2, c + 2), r and c in {0, 2}, rows of 5.
    first = [x[0, 0, r, c] - 2 * x[0, 0, r + 2, c + 2] for r in (0, 2)
             for c in (0, 2)]  # fmt: skip
    second = [3 * (x[0, 1, r, c] - 1) + x[0, 1, r + 2, c + 2] - 1 + 5
              for r in (0, 2) for c in (0, 2)]  # fmt: skip
    assert got[0, 0].flatten().tolist() == [int(v) for v in first]
    assert got[0, 1].flatten().tolist() == [int(v) for v in second]


def test_transposed_convolution_by_hand():
    x = ints(3, 5).view(1, 1, 1, 2)
    weight = ints(1, 2, 3, 4).view(1, 1, 2, 2)
    got = integer.conv_transpose2d(
        x, weight, ints(10), torch.tensor(1), stride=2
    )
    # (3 - 1) and (5 - 1) times the kernel, side by side, and the bias.
    assert got[0, 0].tolist() == [[12, 14, 14, 18], [16, 18, 22, 26]]
    cropped = integer.conv_transpose2d(
        x,
        weight,
        ints(10),
        torch.tensor(1),
        stride=2,
        padding=(0, 1),
        output_padding=(1, 0),
    )
    assert cropped[0, 0].tolist() == [[14, 14], [18, 22], [10, 10]]


def test_linear_by_hand():
    x = ints(1, 2, 3, 4).view(1, 2, 2)
    weight = ints(1, -1, 10, 2).view(2, 2)
    got = integer.linear(x, weight, ints(0, 7), torch.tensor(1))
    # Rows (0, 1) and (2, 3) after the zero point.
    assert got.tolist() == [[[-1, 9], [-1, 33]]]


@pytest.mark.parametrize('extra', [0, 1])
def test_overflow_is_found_at_the_last_integer(extra):
    """2**14 * 2**14 * 8 is 2**31, one more than int32 holds."""
    x = torch.full((1, 8, 1, 1), 2**14, dtype=torch.int32)
    weight = torch.full((1, 8, 1, 1), 2**14, dtype=torch.int32)
    weight[0, 0] -= 1  # 2**31 - 2**14
    bias = ints(2**14 - 1 + extra)
    zero = torch.tensor(0)

    def results():
        flat = weight.flatten(1)
        yield integer.conv2d(x, weight, bias, zero)
        yield integer.conv_transpose2d(x, weight.transpose(0, 1), bias, zero)
        yield integer.linear(x.flatten(1), flat, bias, zero)

    if not extra:
        assert [int(r) for r in results()] == [2**31 - 1] * 3
        return
    for _ in range(3):
        with pytest.raises(OverflowError, match='could reach 2147483648'):
            next(results())


def test_overflow_of_a_partial_sum_is_found():
    """The sum is 0, but an adder might meet the positive terms first."""
    x = torch.full((1, 4), 2**15, dtype=torch.int32)
    weight = ints(2**15, 2**15, -(2**15), -(2**15)).view(1, 4)
    with pytest.raises(OverflowError, match='expected at most 2147483647'):
        integer.linear(x, weight, ints(0), torch.tensor(0))


def test_addition_by_hand():
    a, b = ints(1, -4, 100), ints(2, 3, 130)
    got = integer.add(
        a.view(1, 3),
        b.view(1, 3),
        grid(0.5),
        grid(0.3, zero_point=5, qmin=0, qmax=255),
        grid(0.25, zero_point=-2),
    )
    # 0.5 - 0.9, -2 - 0.6, 50 + 37.5; over 0.25: -1.6, -10.4, 350
    assert got.tolist() == [[-4, -12, 127]]


def test_addition_that_cannot_fit_is_refused():
    far = grid(1.0, zero_point=-40000, qmin=0, qmax=255)
    with pytest.raises(OverflowError, match='int32'):
        integer.add(ints(0), ints(0), far, far, far)


def test_pooling_by_hand():
    x = ints(1, -2, 3, 4, -5, 6, 7, 8, -9).view(1, 1, 3, 3)
    pooled = integer.max_pool2d(x, 2, 2, padding=1)
    assert pooled[0, 0].tolist() == [[1, 3], [7, 8]]
    negative = integer.max_pool2d(ints(-3).view(1, 1, 1, 1), 3, 1, padding=1)
    assert negative.item() == -3
    source, target = grid(0.5, zero_point=1), grid(0.25, zero_point=3)
    mean = integer.avg_pool2d(x, source, target, (3, 3), 1)
    # 0.5 * (13 - 9) / 9 = 0.2222; over 0.25: 0.889
    assert mean.tolist() == [[[[1 + 3]]]]
    padded = integer.avg_pool2d(x, source, target, (2, 2), 2, padding=1)
    # Windows of 1; -2 and 3; 4 and 7; -5, 6, 8 and -9, each less 1.
    sums = torch.tensor([[0.0, -1], [9, -4]]) * 0.5 / 4 / 0.25
    assert (padded[0, 0] - 3).tolist() == sums.round().int().tolist()


def test_clip_by_hand():
    x = ints(0, 3, 4, 9, 15)
    signed = grid(0.5, zero_point=4, qmin=0, qmax=15)
    assert integer.clip(x, signed, low=0).tolist() == [4, 4, 4, 9, 15]
    six = integer.clip(x, grid(1.0, 1, 0, 15), low=0, high=6)
    assert six.tolist() == [1, 3, 4, 7, 7]
    # All values of the grid are negative; zero is above it.
    below = grid(1.0, zero_point=20, qmin=0, qmax=15)
    assert integer.clip(x, below, low=0).tolist() == [15] * 5
    channels = grid([1.0, 1.0], zero_point=0, qmin=-3, qmax=3)
    pair = ints(-2, 2).view(1, 2, 1, 1)
    assert integer.clip(pair, channels, low=0).flatten().tolist() == [0, 2]
