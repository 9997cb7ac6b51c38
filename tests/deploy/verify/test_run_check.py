from pathlib import Path

import pytest
import torch
from torch import nn

from mmgor.deploy.export.job import Job
from mmgor.deploy.verify.run_check import check_run, mean_difference


class Rounded(nn.Module):
    """Noise at halves: the least change of the images moves whole steps."""

    def forward(self, images):
        return [images.mul(2).round(), images.mul(1e8).round().remainder(7)]


def job():
    metadata = dict(outputs=['stable', 'unstable'], target='xnnpack')
    images = torch.zeros(1, 3, 32, 32)
    path = Path('net.pte')
    return Job(Rounded(), images, metadata, path, None, False)


def test_differences_count_in_standard_deviations():
    wanted = torch.tensor([1.0, 3.0])
    assert mean_difference(wanted, wanted + 0.5) == pytest.approx(0.5)


def test_a_runtime_may_round_otherwise_where_torch_does():
    # The second output differs as much as after a change of the images.
    with pytest.warns(UserWarning, match=r'net\.pte says .* about unstable:'):
        check_run(lambda x: Rounded()(x * (1 - 1e-6)), job())


@pytest.mark.parametrize('error', [0.05, float('nan')])
def test_a_runtime_that_computes_something_else_is_refused(error):
    def run(images):
        stable, unstable = Rounded()(images)
        return [stable * (1 + error), unstable]

    with pytest.raises(ValueError, match=r'net\.pte was not .* stable .*xnnp'):
        check_run(run, job())
