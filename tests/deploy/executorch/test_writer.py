"""Students as files of ExecuTorch."""

import pytest
import torch

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.one_level import NAMES, SIZE, student

pytest.importorskip('executorch')


def test_a_student_is_written_and_runs(tmp_path):
    model, cfg = student(target='xnnpack')
    path = tmp_path / 'student.pte'
    done = export_detector(model, cfg, path, SIZE, NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ['student.pte']
    assert done['bytes'] == path.stat().st_size
    assert done['folded'] == 5
    assert read_metadata(path)['target'] == 'xnnpack'
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        wanted = flatten(model(images))
    got = flatten(open_runtime(path, threads=1)(images))
    for ours, theirs in zip(wanted, got, strict=True):
        assert (ours - theirs).abs().mean() < 0.05 * ours.std()
