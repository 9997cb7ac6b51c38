"""Strides of dense heads, with and without a prior generator."""

import pytest
from torch import nn

from mmgor.dense_heads.spec import head_strides
from tests.support.dense_heads import HEADS, STRIDES, build


@pytest.mark.parametrize('name', list(HEADS))
def test_strides(name):
    expected = [8] if name == 'yolof' else STRIDES
    assert head_strides(build(name)) == expected


@pytest.mark.parametrize('attribute', ['strides', 'featmap_strides'])
def test_strides_without_a_prior_generator(attribute):
    head = nn.Identity()
    setattr(head, attribute, [(4, 4), 8])
    assert head_strides(head) == [4, 8]


def test_strides_errors():
    head = nn.Identity()
    with pytest.raises(ValueError, match=r'Identity.*prior_generator.strides'):
        head_strides(head)
    head.strides = [(4, 8)]
    with pytest.raises(ValueError, match=r'equal in x and y, got \[\(4, 8\)'):
        head_strides(head)
