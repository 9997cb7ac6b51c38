from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from torch import nn

from mmgor.deploy.export.frozen import FrozenInput
from mmgor.deploy.export.job import Job
from mmgor.deploy.verify.run_check import (
    check_run,
    mean_difference,
    random_images,
)

STEP = 1e-3


class Rounded(nn.Module):
    """The second output moves by whole steps with any change of what is
    rounded."""

    def __init__(self, **normalisation):
        super().__init__()
        self.detector = nn.Module()
        self.detector.data_preprocessor = DetDataPreprocessor(**normalisation)
        grid = SimpleNamespace(
            scale=torch.tensor(STEP),
            zero_point=torch.tensor(0),
            qmin=0,
            qmax=2**30,
        )
        quantizer = SimpleNamespace(num_slots=1, grid=lambda x, slot: grid)
        self.quantizer = FrozenInput(quantizer, 4)

    def forward(self, images):
        steps = (self.quantizer(images) / STEP).round()
        return [images.mul(2).round(), steps.remainder(7)]


def job(**normalisation):
    metadata = dict(outputs=['stable', 'unstable'], target='xnnpack')
    images = torch.zeros(1, 3, 32, 40)
    network = Rounded(**normalisation)
    return Job(network, images, metadata, Path('net.pte'), None, False)


def test_differences_count_in_standard_deviations():
    wanted = torch.tensor([1.0, 3.0])
    assert mean_difference(wanted, wanted + 0.5) == pytest.approx(0.5)


def test_images_are_smooth_and_normalised():
    pixels = random_images(job())
    assert pixels.shape == (1, 3, 32, 40)
    assert pixels.min() >= 0 and 200 < pixels.max() <= 255
    # Colours are 8 pixels apart.
    assert pixels.diff(dim=-1).abs().max() <= 255 / 8 + 1e-3
    mean, std = [100.0, 110.0, 120.0], [50.0, 51.0, 52.0]
    images = random_images(job(mean=mean, std=std))
    shape = (3, 1, 1)
    again = images * torch.tensor(std).view(shape)
    again = again + torch.tensor(mean).view(shape)
    torch.testing.assert_close(again, pixels)


def test_a_runtime_may_round_otherwise_where_torch_does():
    # The second output differs as much as after a change of what is rounded.
    with pytest.warns(UserWarning, match=r'net\.pte says .* about unstable:'):
        check_run(lambda x: Rounded()(x * (1 - 1e-4)), job())


def test_the_network_is_as_before():
    checked = job()
    with pytest.warns(UserWarning, match='unstable'):
        check_run(checked.network, checked)
    assert not checked.network.quantizer._forward_pre_hooks


@pytest.mark.parametrize('error', [0.05, float('nan')])
def test_a_runtime_that_computes_something_else_is_refused(error):
    def run(images):
        stable, unstable = Rounded()(images)
        return [stable * (1 + error), unstable]

    with pytest.raises(ValueError, match=r'net\.pte was not .* stable .*xnnp'):
        check_run(run, job())
