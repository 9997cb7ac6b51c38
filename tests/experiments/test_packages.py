"""What is said where the packages of the extra are not installed."""

import importlib
import sys

import pytest

import experiments


def test_missing_packages_are_named_with_the_command(monkeypatch):
    for name in ('ray', 'yaml'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        importlib.reload(experiments)
    assert str(caught.value) == (
        'not installed: ray, yaml; expected the packages of '
        'mmgor[experiments]. Type: pip install -e ".[experiments]"'
    )
