import pytest
import torch
from mmdet.models import ResNet
from torch import nn

from mmgor.synthesis.statistics import (
    matched_norms,
    recorded_statistics,
    statistics_loss,
)


def test_a_value_by_hand():
    # Channel 1: mean off by 2 deviations of 1, deviation 3 times as large:
    # 4 + 4. Channel 2: mean off by half a deviation of 2, the same
    # deviation: 1/4.
    loss = statistics_loss(
        torch.tensor([2.0, 1.0]),
        torch.tensor([9.0, 4.0]),
        torch.tensor([0.0, 2.0]),
        torch.tensor([1.0, 4.0]),
        eps=0.0,
    )
    assert loss == pytest.approx((8 + 0.25) / 2)


def test_the_scale_of_a_layer_does_not_count():
    torch.manual_seed(0)
    mean, kept = torch.randn(2, 5)
    var, kept_var = torch.rand(2, 5) + 0.5
    one = statistics_loss(mean, var, kept, kept_var, 0.0)
    ten = statistics_loss(10 * mean, 100 * var, 10 * kept, 100 * kept_var, 0.0)
    assert ten == pytest.approx(float(one), rel=1e-5)


def norm(mean, var, eps=0.0):
    module = nn.BatchNorm2d(1, eps=eps).eval().requires_grad_(False)
    module.running_mean.fill_(mean)
    module.running_var.fill_(var)
    return module


def test_the_mean_over_norms_and_their_calls():
    model = nn.Sequential(norm(0.0, 1.0), norm(0.0, 4.0))
    x = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)  # mean 0, variance 1
    with recorded_statistics(model) as recorder:
        model(x)
        # The second norm is given the same: its deviation is half of 2.
        assert recorder.loss() == pytest.approx(0.25 / 2)
        recorder.forget()
        model(x + 1)
        # Off by 1 in the first, by 1/2 in the second.
        assert recorder.loss() == pytest.approx((1 + 0.25 + 0.25) / 2)
        # With a second call of mean -1, the averages fit the first norm.
        model(x - 1)
        assert recorder.loss() == pytest.approx(0.25 / 2)
    assert not any(m._forward_pre_hooks for m in model)


def test_images_get_a_gradient_and_statistics_stay():
    model = nn.Sequential(norm(0.0, 1.0, eps=1e-9))
    x = torch.ones(2, 1, 2, 2, requires_grad=True)
    with recorded_statistics(model) as recorder:
        model(x)
        recorder.loss().backward()
    # d/dx of (mean - 0)^2 with mean 1, spread over 8 values; the deviation
    # of a constant has none.
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.25))
    assert model[0].running_mean == 0


def test_checkpointing_is_off_in_the_block():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = ResNet(18, base_channels=4, stem_channels=4, with_cp=with_cp)
        model.eval()
        pixels = torch.ones(1, 3, 32, 32, requires_grad=True)
        with recorded_statistics(model) as recorder:
            model(pixels)
            recorder.loss().backward()
        gradients.append(pixels.grad)
        assert model.layer2[0].with_cp is with_cp
    torch.testing.assert_close(*gradients)


def test_norms_without_statistics_are_refused():
    model = nn.Sequential(nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match='got one with GroupNorm'):
        matched_norms(model)
    with pytest.raises(ValueError, match='got one with no norms'):
        matched_norms(nn.Conv2d(4, 4, 1))


def test_a_pass_without_norms_is_an_error():
    message = pytest.raises(RuntimeError, match='no batch norm ran')
    with recorded_statistics(norm(0.0, 1.0)) as recorder, message:
        recorder.loss()
