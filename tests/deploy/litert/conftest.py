import copy

import pytest

from tests.support.litert import Converted, convert_small


@pytest.fixture(scope='session')
def small() -> Converted:
    """Convolutions of 4 and 8 bits, converted once for all tests here."""
    pytest.importorskip('litert_torch')
    pytest.importorskip('ai_edge_litert')
    return convert_small()


@pytest.fixture
def model(small):
    """The converted network, to be changed."""
    return copy.deepcopy(small.model)
