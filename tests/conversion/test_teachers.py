"""KD heads that fit a pair."""

import pytest
from mmdet.models.backbones import ResNet
from mmengine.config import Config

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.conversion.teachers import parse_teachers
from mmgor.registry import MODELS
from tests.support.conversion import RETINANET, write_float, write_weights

YOLOX = 'yolox/yolox_nano_8xb8-300e_coco'
FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'


def teacher(folder, name):
    config = write_float(folder, name)
    return f'{config}:{write_weights(config)}'


def heads(tmp_path, student, *teachers):
    """The KD heads of a conversion, and what was said."""
    said, out = [], tmp_path / 'student.py'
    names = [teacher(tmp_path, name) for name in teachers]
    request = Request(str(write_float(tmp_path, student)), out, teachers=names)
    trial = convert(request, said.append)
    assert trial.still == []
    cfg = Config.fromfile(out)
    assert cfg.model.type == 'GoRDetector'
    MODELS.build(cfg.model)
    return cfg.model.kd_heads, '\n'.join(said)


def test_dense_heads_share_scores_and_boxes(tmp_path):
    found, _ = heads(tmp_path, RETINANET, YOLOX)
    assert found == dict(
        score=dict(type='ScoreKDHead'), box=dict(type='BoxKDHead')
    )


def test_any_teacher_gives_detections(tmp_path):
    found, said = heads(tmp_path, RETINANET, FASTER)
    assert found == dict(detections=dict(type='DetectionKDHead'))
    assert 'not ScoreKDHead and BoxKDHead: ' in said


def test_a_student_with_proposals_learns_features(tmp_path):
    found, _ = heads(tmp_path, FASTER, RETINANET)
    assert found == dict(
        neck=dict(
            type='FeatureKDHead',
            student_channels=16,
            strides=[8, 16, 32, 64],
        )
    )


def test_several_teachers_are_fused(tmp_path):
    gfl = 'gfl/gfl_r50_fpn_1x_coco'
    found, _ = heads(tmp_path, RETINANET, YOLOX, gfl)
    both = ['yolox_nano', 'gfl_r50']
    assert found == dict(
        score=dict(type='ScoreKDHead', teacher=both, fusion='confidence'),
        box=dict(type='BoxKDHead', teacher=both[0]),
    )


def test_a_teacher_that_fits_nowhere_is_refused(tmp_path):
    config = write_float(tmp_path)
    weights = write_weights(config)
    cfg = Config.fromfile(config)
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.metainfo.classes = ('x', 'y', 'z')
    cfg.model.neck.update(start_level=0, end_level=0, num_outs=1)
    cfg.model.neck.pop('add_extra_convs')
    cfg.model.bbox_head.anchor_generator.strides = [4]
    other = tmp_path / 'other.py'
    cfg.dump(other)
    base = Request(str(config), tmp_path / 'student.py')
    request = Request(
        base.config, base.out, teachers=[f'{other}:{write_weights(other)}']
    )
    with pytest.raises(ValueError, match='no KD head fits') as error:
        convert(request, lambda _: None)
    assert 'knows none of the classes' in str(error.value)
    assert 'no stride in common' in str(error.value)
    assert weights.is_file() and not request.out.exists()


@MODELS.register_module()
class CountedResNet(ResNet):
    built = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        CountedResNet.built += 1


def test_random_weights_stand_for_a_url_once(tmp_path):
    config = write_float(tmp_path).rename(tmp_path / 'teacher.py')
    cfg = Config.fromfile(config)
    cfg.model.backbone.type = 'CountedResNet'
    cfg.dump(config)
    url = 'https://example.com/teacher.pth'
    request = Request(
        str(write_float(tmp_path)),
        tmp_path / 'student.py',
        teachers=[f'{config}:{url}'],
    )
    CountedResNet.built = 0
    convert(request, lambda _: None)
    # For its weights, for its strides, with the KD heads, with the student.
    assert CountedResNet.built == 4
    model = Config.fromfile(request.out).model
    assert model.teachers.teacher.checkpoint == url


def test_teachers_are_named_after_their_configs(tmp_path):
    first = teacher(tmp_path, RETINANET)
    found = parse_teachers([first, first, first])
    names = ['retinanet_r18', 'retinanet_r18_2', 'retinanet_r18_3']
    assert [one.name for one in found] == names


def test_every_teacher_has_a_name_of_its_own(tmp_path):
    weights = tmp_path / 'weights.pth'
    weights.touch()
    given = [f'{stem}.py:{weights}' for stem in ('yolo_2', 'yolo', 'yolo')]
    names = [one.name for one in parse_teachers(given)]
    assert names == ['yolo_2', 'yolo', 'yolo_3']


def test_a_zoo_has_the_checkpoint():
    (found,) = parse_teachers(['mmdet::atss/atss_r101_fpn_1x_coco.py'])
    assert found.checkpoint.startswith('https://download.openmmlab.com/')
    assert found.name == 'atss_r101'


@pytest.mark.parametrize(
    'value, kind, match',
    [
        ('r101.pth', ValueError, 'expected CONFIG.py:CHECKPOINT'),
        ('a.py', ValueError, 'a.py has no checkpoint'),
        ('a.py:lost.pth', FileNotFoundError, 'lost.pth'),
    ],
)
def test_no_such_teacher(value, kind, match):
    with pytest.raises(kind, match=match):
        parse_teachers([value])
