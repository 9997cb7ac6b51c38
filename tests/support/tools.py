"""Runs a script of tools/."""

import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def run_tool(
    monkeypatch: pytest.MonkeyPatch, name: str, *argv: object
) -> None:
    """Run ``tools/<name>.py`` in this process."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, argv)])
    runpy.run_path(str(TOOLS / f'{name}.py'), run_name='__main__')
