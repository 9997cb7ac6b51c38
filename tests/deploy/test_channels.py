"""Students that take grey images, from a new-style config to detections."""

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs, Resize
from mmdet.models import FPN, DetDataPreprocessor, ResNet, RetinaHead
from mmdet.models import RetinaNet as StockRetinaNet
from mmengine.config import Config

from mmgor.deploy import Detector, export_detector, verify_export
from mmgor.deploy.cost.measure import layer_costs
from mmgor.deploy.description.metadata import make_metadata
from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.runtime.base import check_images
from mmgor.deploy.runtime.images import as_bgr, as_input
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import quantized_cfg

META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def student_cfg(channels=1):
    """A new-style config: its types are classes instead of names."""
    cfg = quantized_cfg(w_bits=8, a_bits=8)
    cfg.type = StockRetinaNet
    cfg.data_preprocessor = dict(
        type=DetDataPreprocessor, mean=[120.0], std=[60.0], pad_size_divisor=32
    )
    cfg.backbone.update(backbone=ResNet, in_channels=channels)
    cfg.neck.neck = FPN
    cfg.bbox_head.head = RetinaHead
    return cfg


@pytest.fixture(scope='module')
def grey(exported, tmp_path_factory):
    """A config, its checkpoint and the file exported from it."""
    folder = tmp_path_factory.mktemp('grey')
    cfg = exported.cfg()
    cfg.model = student_cfg()
    pipeline = [
        dict(type='LoadImageFromFile', color_type='grayscale'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type=Resize, scale=(64, 64), keep_ratio=True),
        dict(type=PackDetInputs, meta_keys=META_KEYS),
    ]
    cfg.test_dataloader.dataset.update(type=CocoDataset, pipeline=pipeline)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    calibrate(model, [torch.randn(2, 1, 64, 64)], model)
    checkpoint = folder / 'grey.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    path = folder / 'grey.onnx'
    names = ('circle', 'square', 'triangle')
    export_detector(model.eval(), cfg, path, (64, 64), names)
    cfg.test_dataloader.dataset.metainfo = dict(classes=names)
    return cfg, checkpoint, path


def test_the_file_takes_one_channel(grey):
    metadata = read_metadata(grey[2])
    assert metadata['input']['channels'] == 1
    assert metadata['model'] == 'RetinaNet'
    pipeline = metadata['config']['test_dataloader']['dataset']['pipeline']
    assert [step['type'] for step in pipeline][2:] == [
        'Resize',
        'PackDetInputs',
    ]
    model = MODELS.build(runtime_model(grey[0], grey[2]))
    with pytest.raises(ValueError, match=r'\(N, 1, height, width\), got \(1,'):
        model.runtime(torch.zeros(1, 3, 64, 64))


def test_it_equals_pytorch(grey):
    found = verify_export(*grey, images=4)
    assert found.images == 4
    assert max(output.mean for output in found.outputs) < 0.05


def test_detector_of_grey_images(grey, exported):
    detector = Detector(grey[2], score_thr=0.0)
    path = sorted((exported.scenes / 'images').iterdir())[0]
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    (wanted,) = detector(path)
    assert len(wanted.pred_instances)
    for same in (image, image[..., None]):
        (got,) = detector(same)
        torch.testing.assert_close(
            got.pred_instances.bboxes, wanted.pred_instances.bboxes
        )
    # A decoder turns colours into grey with other weights than OpenCV.
    colour = mmcv.imread(path)
    assert as_input(colour, 1)['img'].shape == image.shape
    assert np.abs(as_input(colour, 1)['img'] - image.astype(int)).max() < 9
    assert len(detector(colour)[0].pred_instances)
    assert detector.draw(image, wanted).shape == (64, 64, 3)


def test_an_image_with_other_channels(grey, exported, monkeypatch):
    """The message names the image, not the file."""
    path = next((exported.scenes / 'images').iterdir())
    detector = Detector(grey[2])
    monkeypatch.setattr(detector, '_channels', 4)
    with pytest.raises(ValueError, match=f'^{path} has 1 channels .* takes 4'):
        detector(path)


def test_four_channels():
    model = MODELS.build(student_cfg(4))
    cfg = Config(dict(model=student_cfg(4)))
    metadata = make_metadata(cfg, model, ('a',), (1, 64, 64), 32, [])
    assert metadata['input']['channels'] == 4
    check_images(torch.zeros(1, 4, 64, 64), metadata['input'])
    assert layer_costs(model, (64, 64))[0].macs


def test_arrays_of_other_channels():
    depth = np.zeros((8, 6, 4), np.uint16)
    assert as_input(depth, 4)['img'] is depth
    assert as_bgr(depth).shape == (8, 6, 3)
    for wrong in (depth[..., :3], depth[..., 0]):
        with pytest.raises(ValueError, match=r'of shape \(H, W, 4\), got an'):
            as_input(wrong, 4)
    with pytest.raises(ValueError, match=r'of shape \(H, W, 1\), got an'):
        as_input(depth, 1)
