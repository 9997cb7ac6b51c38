"""Weights of locations."""

import pytest
import torch

from mmgor.distillation.losses.location_weights import (
    foreground_weight,
    weighted_mean,
)


def test_foreground_weight_and_weighted_mean_by_hand():
    scores = torch.tensor([[0.1, 0.5], [0.2, 0.1]])
    weights = foreground_weight(scores, 2.0)
    torch.testing.assert_close(weights, torch.tensor([0.25, 0.04]))
    mean = weighted_mean(torch.tensor([1.0, 3.0]), weights)
    assert mean.item() == pytest.approx((0.25 + 0.12) / 0.29)
    assert (foreground_weight(scores, 0.0) == 1).all()
