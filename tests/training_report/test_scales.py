"""Changes of step sizes between two checkpoints."""

import math

import pytest
import torch

from mmgor.training_report.scales import scale_changes


def test_changes_are_those_of_logarithms():
    before = {
        'a.weight_quantizer.log_scale': torch.tensor([0.0, 1.0]),
        'b.input_quantizer.alpha': torch.tensor([2.0]),
        'b.input_quantizer.offset': torch.tensor([2.0]),
        'c.weight': torch.tensor([1.0]),
        'gone.weight_quantizer.log_scale': torch.tensor([0.0]),
        'kd_heads.x_quantizer.log_scale': torch.tensor([0.0]),
    }
    after = {
        'a.weight_quantizer.log_scale': torch.tensor([0.1, 0.6]),
        'b.input_quantizer.alpha': torch.tensor([1.0]),
        'b.input_quantizer.offset': torch.tensor([9.0]),
        'c.weight': torch.tensor([9.0]),
        'new.weight_quantizer.log_scale': torch.tensor([0.0]),
        'kd_heads.x_quantizer.log_scale': torch.tensor([5.0]),
    }
    first, second = scale_changes(before, after)
    assert (first.name, first.count) == ('b.input_quantizer', 1)
    assert (first.mean, first.most) == pytest.approx(
        (-math.log(2), math.log(2))
    )
    assert (second.name, second.count) == ('a.weight_quantizer', 2)
    assert (second.mean, second.most) == pytest.approx((-0.15, 0.4))


def test_other_shapes_do_not_compare():
    key = 'a.weight_quantizer.log_scale'
    assert scale_changes({key: torch.ones(2)}, {key: torch.ones(3)}) == []
