import torch
from mmdet.structures.bbox import bbox_overlaps

from mmgor.synthesis.boxes import MOST_OVERLAP, SHAPES, SIZES, sample_boxes

SIZE = (120, 200)


def draw(seed, **settings):
    generator = torch.Generator().manual_seed(seed)
    return sample_boxes(generator, SIZE, 7, **settings)


def test_boxes_are_inside_and_of_the_stated_sizes():
    counts, seen = set(), set()
    for seed in range(200):
        boxes, labels = draw(seed)
        counts.add(len(boxes))
        seen |= set(labels.tolist())
        assert boxes.shape == (len(labels), 4)
        assert labels.dtype == torch.int64
        x1, y1, x2, y2 = boxes.unbind(1)
        assert (x1 >= 0).all() and (y1 >= 0).all()
        assert (x2 <= 200).all() and (y2 <= 120).all()
        width, height = x2 - x1, y2 - y1
        side = (width * height).sqrt() / (120 * 200) ** 0.5
        # The image cuts a box that is higher or wider than it.
        whole = (height < 120) & (width < 200)
        assert (side <= SIZES[1] + 1e-4).all()
        assert (side[whole] >= SIZES[0] - 1e-4).all()
        shape = (width / height)[whole]
        assert (shape >= SHAPES[0] - 1e-4).all()
        assert (shape <= SHAPES[1] + 1e-4).all()
        overlap = bbox_overlaps(boxes, boxes).fill_diagonal_(0)
        assert (overlap <= MOST_OVERLAP + 1e-6).all()
    assert counts == {1, 2, 3, 4}
    assert seen == set(range(7))


def test_the_seed_decides():
    for first, second in zip(draw(3), draw(3)):
        assert first.equal(second)
    assert not draw(3)[0].equal(draw(4)[0])


def test_most_is_the_largest_number():
    assert {len(draw(seed, most=1)[0]) for seed in range(20)} == {1}
