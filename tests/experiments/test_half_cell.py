"""experiments/half_cell.py: scores between locations."""

import sys
from importlib import import_module

import pytest
import torch

from mmgor.registry import MODELS


@pytest.fixture
def module():
    """Registered for this test alone."""
    module = import_module('experiments.half_cell')
    yield module
    del sys.modules[module.__name__]
    del MODELS.module_dict['HalfCellScoreKDHead']


def test_half_a_cell_on(module):
    """Means of 2 x 2 by hand; the last row and column stand twice."""
    scores = torch.tensor([[0.1, 0.3, 0.7], [0.5, 0.9, 0.3]])
    moved = module.half_a_cell_on(scores.logit()[None, None]).sigmoid()
    expected = [[0.45, 0.55, 0.5], [0.7, 0.6, 0.3]]
    torch.testing.assert_close(moved[0, 0], torch.tensor(expected))
