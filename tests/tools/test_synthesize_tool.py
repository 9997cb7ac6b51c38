"""tools/synthesize.py on a tiny detector, from its config file."""

import json
import sys

import pytest
import synthesize as tool
import torch
from mmengine.config import Config

from mmgor.datasets.shapes import CLASSES
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.training import dataset


def files(tmp_path, model):
    torch.manual_seed(0)
    model.bbox_head.num_classes = len(CLASSES)
    config, checkpoint = tmp_path / 'tiny.py', tmp_path / 'tiny.pth'
    Config(
        dict(
            default_scope='mmdet',
            model=model,
            test_dataloader=dict(dataset=dataset(tmp_path, 'eval')),
        )
    ).dump(config)
    torch.save(MODELS.build(model).state_dict(), checkpoint)
    return config, checkpoint


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, 'argv', ['synthesize.py', *map(str, argv)])
    tool.main()


def test_images_and_progress(tmp_path, monkeypatch, capsys):
    config, checkpoint = files(tmp_path, retinanet_cfg())
    out = tmp_path / 'out'
    flags = ['--out', out, '--images', 2, '--steps', 2, '--batch', 2]
    run(monkeypatch, config, checkpoint, *flags)
    text = capsys.readouterr().out
    assert '0 of 2 images, step 1 of 2: statistics ' in text
    assert f'{out / "train.json"}: 2 images' in text
    written = json.loads((out / 'train.json').read_text())
    # The size of the test images.
    assert [(i['width'], i['height']) for i in written['images']] == [
        (64, 64)
    ] * 2
    assert [c['name'] for c in written['categories']] == list(CLASSES)


def test_a_quantized_detector_is_refused(tmp_path, monkeypatch):
    config, checkpoint = files(tmp_path, quantized_cfg())
    with pytest.raises(ValueError, match='is a quantized detector: expected'):
        run(monkeypatch, config, checkpoint, '--out', 'x', '--images', 1)
