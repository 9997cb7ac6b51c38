"""Registers MMPretrain's backbones, among them timm's."""

import pytest


@pytest.fixture(scope='session', autouse=True)
def registered() -> None:
    pytest.importorskip('timm')
    pytest.importorskip('mmpretrain.models')
