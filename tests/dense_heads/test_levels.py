import pytest
import torch

from mmgor.dense_heads.levels import (
    check_strides,
    common_strides,
    crop_to_common,
    in_rows,
    log_shared_strides,
    map_strides,
    pick_strides,
)


@pytest.mark.parametrize(
    'size, sides, want',
    [
        ((320, 320), (40, 20, 10, 5, 3), [8, 16, 32, 64, 128]),
        ((64, 64), (8, 4, 2, 1, 1), [8, 16, 32, 64, 128]),
        ((416, 416), (13, 26, 52), [32, 16, 8]),
        ((300, 300), (38, 19, 10, 5), [8, 16, 32, 64]),
        ((64, 64), (32,), [2]),
        ((75, 75), (9, 4, 2, 1), [8, 16, 32, 64]),
    ],
)
def test_strides_come_from_sizes(size, sides, want):
    assert map_strides(size, [(n, n) for n in sides]) == want


def test_height_and_width_both_tell():
    assert map_strides((32, 256), [(1, 8), (1, 4)]) == [32, 64]


def test_levels_are_found_by_stride():
    assert common_strides([8, 16, 32], [4, 32, 16], 'big') == [16, 32]
    assert pick_strides('abc', [4, 32, 16], [16, 32]) == ['c', 'b']
    with pytest.raises(ValueError, match=r"\[8\], teacher 'big' of \[16\]"):
        common_strides([8], [16], 'big')


def test_anchors_of_all_levels_in_mmdets_order():
    """Locations row by row; the anchors of a location follow each other."""
    level = torch.arange(16.0).view(1, 2, 4, 1, 2)  # 2 anchors, 2 locations
    rows = in_rows([level, -level])
    assert rows.shape == (1, 8, 4)
    assert rows[0, :4, 0].tolist() == [0, 8, 1, 9]
    assert rows[0, 1].tolist() == [8, 10, 12, 14]
    assert torch.equal(rows[:, 4:], -rows[:, :4])


def test_maps_are_cut_at_the_right_and_below():
    a, b = torch.arange(6.0).view(1, 2, 3), torch.arange(6.0).view(1, 3, 2)
    a, b = crop_to_common([a, b], [(16, 24), (24, 16)], 8, ['big'])
    assert a.tolist() == [[[0, 1], [3, 4]]]
    assert b.tolist() == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize(
    'stride, student, teacher, sizes',
    [
        (8, 40, 40, (320, 320)),
        (8, 38, 40, (300, 320)),  # size divisors 1 and 32
        (8, 37, 40, (300, 320)),  # the same, rounded down
        (8, 38, 48, (300, 384)),
        (8, 38, 37, (300, 300)),  # rounded up and rounded down
        (4, 75, 80, (300, 300)),  # upsampled from ceil(300 / 32)
        (128, 1, 3, (64, 64)),
    ],
)
def test_padding_explains_a_few_rows(stride, student, teacher, sizes):
    maps = [torch.zeros(1, n, n) for n in (student, teacher)]
    maps = crop_to_common(maps, [(n, n) for n in sizes], stride, ['big'])
    assert [x.shape[1] for x in maps] == [min(student, teacher)] * 2


@pytest.mark.parametrize('rows', [20, 36, 44, 80])
def test_padding_does_not_explain_another_stride(rows):
    maps = [torch.zeros(1, 40, 40), torch.zeros(1, rows, 40)]
    message = (
        r'stride 8: the student .* \(40, 40\) for an input of \(320, 320\), '
        rf"teacher 'big' one of \({rows}, 40\) for \(320, 320\); expected"
    )
    with pytest.raises(ValueError, match=message):
        crop_to_common(maps, [(320, 320)] * 2, 8, ['big'])
    # A first teacher that fits does not hide a second one that does not.
    with pytest.raises(ValueError, match=message):
        crop_to_common([maps[0], *maps], [(320, 320)] * 3, 8, ['small', 'big'])


def test_levels_without_a_teacher_are_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmgor.dense_heads.levels.print_log',
        lambda text, **_: logged.append(text),
    )
    log_shared_strides('ScoreKDHead', [8, 16], [8, 16], "'big'")
    assert logged == []
    log_shared_strides('ScoreKDHead', [8, 16], [16], "'big'")
    (text,) = logged
    assert r"[8, 16] of the student, only [16] are in 'big'" in text


def test_of_two_maps_of_one_stride_the_last_is_taken():
    """A stacked hourglass (CornerNet) gives two maps of one stride."""
    strides = map_strides((128, 128), [(32, 32), (32, 32)])
    assert strides == [4, 4]
    assert pick_strides('ab', strides, [4]) == ['b']
    with pytest.raises(ValueError, match=r'Set strides=\[4\]\.'):
        check_strides(strides, [8, 16], 'student')
