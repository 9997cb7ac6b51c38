import pytest
import torch

from mmgor.synthesis.images import smooth_noise, total_variation


def test_total_variation_by_hand():
    # Down: 2, 2; across: 1, 1.
    image = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 1, 2, 2)
    assert total_variation(image) == pytest.approx(4 + 1)


def test_a_start_is_smooth_and_within_the_range_of_pixels():
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise(generator, 3, (40, 64))
    assert images.shape == (3, 3, 40, 64)
    assert images.min() >= 0 and images.max() <= 1
    assert images.std() > 0.05
    # White noise has four times the variance.
    assert total_variation(images) < 0.5 * images.var()
    again = smooth_noise(torch.Generator().manual_seed(0), 3, (40, 64))
    assert images.equal(again)
