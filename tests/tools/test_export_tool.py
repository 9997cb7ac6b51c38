"""tools/export.py: the image size of the exported file."""

import sys
import warnings

import export
import pytest
from mmengine.config import Config

from tests.support.models import quantized_cfg


@pytest.fixture
def exported_size(tmp_path, monkeypatch):
    """Runs the tool on a config; gives the size that it exports for."""
    sizes, targets = [], []

    def export_detector(model, cfg, path, size, classes, target, **_):
        sizes.append(size)
        targets.append(target)
        spec = dict(batch=2, channels=1, height=size[0], width=size[1])
        metadata = dict(quantization=[], input=spec, rest=[])
        return dict(bytes=0, folded=0, metadata=metadata)

    monkeypatch.setattr(export, 'export_detector', export_detector)
    monkeypatch.setattr(export, 'load_detector', lambda *_: None)
    monkeypatch.setattr(export, 'class_names', lambda *_: ('a', 'b', 'c'))

    def run(*argv, divisor=32, **resize):
        pipeline = [dict(type='Resize', **resize)]
        cfg = Config(
            dict(
                model=quantized_cfg(),
                test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            )
        )
        cfg.model.data_preprocessor.pad_size_divisor = divisor
        cfg.dump(tmp_path / 'cfg.py')
        out = str(tmp_path / 'n.onnx')
        files = ['export.py', str(tmp_path / 'cfg.py'), 'c.pth', '--out', out]
        monkeypatch.setattr(sys, 'argv', [*files, *argv])
        export.main()
        return sizes.pop()

    run.targets = targets
    return run


def test_upright_images_that_will_not_fit(exported_size):
    mmdets = dict(scale=(1333, 800), keep_ratio=True)
    hint = r'up to 800 x 1344 .*type --dynamic, or --size 1344 1344'
    with pytest.warns(UserWarning, match=hint):
        assert exported_size(**mmdets) == (800, 1344)


def test_images_that_fit(exported_size):
    mmdets = dict(scale=(1333, 800), keep_ratio=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        exported_size('--dynamic', **mmdets)
        exported_size('--size', '800', '1344', **mmdets)
        assert exported_size(scale=(1333, 800)) == (800, 1344)
        assert exported_size(scale=(640, 640), keep_ratio=True) == (640, 640)
        # Both sides are padded to 640.
        assert exported_size(scale=(640, 620), keep_ratio=True) == (640, 640)


def test_dynamic_sizes_without_a_divisor(exported_size):
    """Rounded by what the export asks for, which is 32 at least."""
    size = dict(divisor=1, scale=(1333, 800))
    assert exported_size('--dynamic', **size) == (800, 1344)
    assert exported_size(**size) == (800, 1333)


def test_config_entries_from_the_command_line(exported_size):
    scale = 'test_dataloader.dataset.pipeline.0.scale=(128,64)'
    asked = exported_size('--cfg-options', scale, scale=(640, 640))
    assert asked == (64, 128)


def test_what_is_printed_is_what_was_written(exported_size, capsys):
    exported_size('--batch', '2', scale=(96, 64))
    assert 'input 2 x 1 x 64 x 96, ' in capsys.readouterr().out


def test_the_target_is_handed_on(exported_size):
    exported_size('--target', 'rknn', scale=(96, 64))
    exported_size(scale=(96, 64))
    assert exported_size.targets == ['rknn', None]


def test_a_backend_of_another_suffix(exported_size, capsys):
    exported_size('--backend', 'onnxruntime', scale=(96, 64))
    with pytest.raises(SystemExit):
        exported_size('--backend', 'openvino', scale=(96, 64))
    assert 'a name ending in .xml for openvino' in capsys.readouterr().err
