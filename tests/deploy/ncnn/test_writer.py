"""Students as files of ncnn."""

import pytest
import torch

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.one_level import NAMES, SIZE, student

pytest.importorskip('ncnn')


def test_a_student_is_written_and_runs(tmp_path):
    model, cfg = student(target='ncnn')
    path = tmp_path / 'student.param'
    done = export_detector(model, cfg, path, SIZE, NAMES)
    files = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert sorted(files) == ['student.bin', 'student.param']
    assert done['bytes'] == sum(files.values())
    assert done['folded'] == 5
    metadata = read_metadata(path)
    assert (metadata['target'], metadata['nms']) == ('ncnn', False)
    lines = path.read_text().splitlines()
    convolutions = [x for x in lines if x.startswith('Convolution ')]
    assert len(convolutions) == len(metadata['quantization'])
    assert all(' 8=1' in line for line in convolutions)
    # In range: ncnn takes -127 for -128.
    images = torch.randn(1, 3, *SIZE).clamp(-2, 2)
    with torch.no_grad():
        wanted = flatten(model(images))
    got = flatten(open_runtime(path, threads=1)(images))
    for ours, theirs in zip(wanted, got, strict=True):
        assert (ours - theirs).abs().mean() < 0.02 * ours.std()
