"""A fixture for ``pytest_plugins``: a conftest.py here would hide tests/'s."""

from pathlib import Path

import pytest
from ledger_tools import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A small plan whose trainings are faked."""
    bench = Bench(tmp_path)
    monkeypatch.setenv('FAKE_TRAIN_CALLS', str(bench.calls_file))
    return bench
