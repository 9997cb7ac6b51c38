"""tools/pack.py on a tiny student, from its config and checkpoint."""

import os
import re
import sys

import pack as pack_tool
import pytest
import torch
from mmengine.config import Config

from mmgor.deploy.packing.pack import read_packed
from mmgor.quantization import layer_table
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.packing import assert_same_student, student


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A config and the checkpoint of its student."""
    folder = tmp_path_factory.mktemp('student')
    cfg = dict(
        model=quantized_cfg(),
        test_dataloader=dict(dataset=dict(type='CocoDataset')),
    )
    Config(cfg).dump(folder / 'config.py')
    model = student(quantized_cfg())
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    state_dict = {**model.state_dict(), 'kd_heads.cls.w': torch.ones(2)}
    torch.save(dict(state_dict=state_dict, meta=meta), folder / 'x.pth')
    return folder, model


def run_tool(monkeypatch, *argv):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.setattr(sys, 'argv', ['pack.py', *map(str, argv)])
    try:
        pack_tool.main()
    finally:
        os.environ.pop('LOCAL_RANK', None)


def test_the_tool(files, tmp_path, monkeypatch, capsys):
    folder, model = files
    out = tmp_path / 'new' / 'student.mmgor'
    config = folder / 'config.py'
    run_tool(monkeypatch, config, folder / 'x.pth', '--out', out)
    state_dict, manifest = read_packed(out)
    assert manifest['meta'] == dict(classes=['a', 'b', 'c'])
    fresh = MODELS.build(quantized_cfg())
    fresh.load_state_dict(state_dict)
    assert_same_student(model, fresh)
    total = layer_table(model)['total']
    told = re.search(
        r'3 class names; (\d+) bytes \((\d+) of tensors, (\d+) of manifest\),'
        r' (\d+) in float32',
        capsys.readouterr().out,
    )
    size, tensors, overhead, in_float = map(int, told.groups())
    assert size == out.stat().st_size == tensors + overhead
    assert (tensors, in_float) == (total['bytes'], total['float_bytes'])


def test_the_tool_refuses(files, tmp_path, monkeypatch, capsys):
    config, checkpoint = files[0] / 'config.py', files[0] / 'x.pth'
    out = tmp_path / 'student.mmgor'

    def told(error, message, *inputs, target=out):
        with pytest.raises(error, match=message):
            run_tool(monkeypatch, *inputs, '--out', target)

    told(SystemExit, '2', config, checkpoint, target=checkpoint)
    assert 'is an input; give another file' in capsys.readouterr().err
    told(FileNotFoundError, 'config not found', tmp_path / 'n.py', checkpoint)
    told(FileNotFoundError, 'checkpoint not found', config, tmp_path / 'n')
    path = tmp_path / 'other.pth'
    stock = MODELS.build(retinanet_cfg()).state_dict()
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    torch.save(dict(state_dict=stock, meta=meta), path)
    told(ValueError, 'never calibrated', config, path)
    torch.save(dict(state_dict=dict(foo=torch.ones(1)), meta=meta), path)
    told(RuntimeError, 'matches nothing', config, path)
    assert not out.exists()
