import pytest
import torch
from torch import nn

from mmgor.registry import MODELS
from mmgor.synthesis import SynthesisSpec, synthesize
from mmgor.synthesis.detector import check_detector, preprocessing
from tests.support.models import retinanet_cfg, student_cfg


@pytest.fixture
def refused(tmp_path):
    def check(model, message):
        spec = SynthesisSpec(2, (64, 64))
        out = tmp_path / 'out'
        with pytest.raises(ValueError, match=message) as error:
            synthesize(model, ('a', 'b', 'c'), out, spec)
        assert 'Type the config' in str(error.value)
        assert not out.exists()

    return check


def test_a_detector_of_boxes_is_taken():
    check_detector(MODELS.build(retinanet_cfg()))


def test_masks_are_refused(refused):
    model = MODELS.build(retinanet_cfg())
    model.bbox_head.mask_head = nn.Conv2d(1, 1, 1)
    refused(model, 'not with masks: .* RetinaNet with bbox_head.mask_head')


def test_a_detector_with_teachers_is_refused(refused, tmp_path):
    path = tmp_path / 'teacher.pth'
    cfg = retinanet_cfg(channels=12, fpn=24)
    torch.save(MODELS.build(cfg).state_dict(), path)
    model = MODELS.build(student_cfg(dict(config=cfg, checkpoint=str(path))))
    refused(model, 'trained by itself, got a GoRRetinaNet with teachers')


def test_a_semi_supervised_detector_is_refused(refused):
    model = MODELS.build(
        dict(
            type='SoftTeacher',
            detector=retinanet_cfg(),
            semi_train_cfg=dict(freeze_teacher=True),
        )
    )
    refused(model, 'trained by itself, got a SoftTeacher with teachers')


def test_images_of_one_channel_are_refused(refused):
    cfg = retinanet_cfg()
    cfg.backbone.in_channels = 1
    refused(MODELS.build(cfg), r'RetinaNet for images with 1 channel\(s\)')


def test_preprocessing():
    model = MODELS.build(retinanet_cfg())
    found = preprocessing(model)
    assert found.keys() == {'channels_reversed', 'mean', 'std'}
    assert found['channels_reversed'] is True
    assert found['mean'] == pytest.approx([123.675, 116.28, 103.53])
    assert found['std'] == pytest.approx([58.395, 57.12, 57.375])
