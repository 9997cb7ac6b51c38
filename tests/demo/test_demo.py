import json
from pathlib import Path

import pytest

from mmgor.demo.arms import CONTINUED, TAUGHT, TEACHERS, build_arm
from mmgor.demo.data import DataFolder, read_data_folder
from mmgor.demo.progress import condense
from mmgor.demo.table import format_rows, model_size, spread

DATA = DataFolder(Path('/data'), ('a', 'b'), 160)


def folder(tmp_path, train=None, held_out=None):
    good = dict(
        images=[dict(id=1, file_name='x', width=32, height=48)],
        annotations=[dict(id=1)],
        categories=[dict(id=2, name='b'), dict(id=1, name='a')],
    )
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'x').touch()
    for name, content in (('train', train), ('eval', held_out)):
        text = (
            content
            if isinstance(content, str)
            else json.dumps({**good, **(content or {})})
        )
        (tmp_path / f'{name}.json').write_text(text)
    return tmp_path


def test_classes_keep_the_order_of_the_file(tmp_path):
    # mmdet numbers labels in the order of getCatIds, which is the file's.
    data = read_data_folder(folder(tmp_path))
    assert (data.classes, data.side) == (('b', 'a'), 48)


def test_large_pictures_are_shrunk(tmp_path):
    images = [dict(id=1, file_name='x', width=4000, height=30)]
    assert read_data_folder(folder(tmp_path, dict(images=images))).side == 320


def test_listed_pictures_must_be_there(tmp_path):
    root = folder(tmp_path)
    (root / 'images' / 'x').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 1 listed pictures'):
        read_data_folder(root)


def test_missing_part(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train\.json not found'):
        read_data_folder(tmp_path)


@pytest.mark.parametrize(
    'train, message',
    [
        ('{', 'is no JSON file'),
        (dict(annotations=[]), 'has no annotations'),
        (dict(categories=[dict(id=1, name='z')]), 'the same categories'),
    ],
)
def test_unusable_annotations(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        read_data_folder(folder(tmp_path, train=train))


@pytest.mark.parametrize('name', CONTINUED)
def test_arms_are_fair(name, tmp_path):
    """Same data, schedule and start for every student that continues."""
    start = build_arm('float', 3, DATA, tmp_path)
    arm = build_arm(name, 3, DATA, tmp_path)
    assert arm.config.load_from == str(start.checkpoint)
    for key in ('train_cfg', 'param_scheduler', 'train_dataloader'):
        assert arm.config[key] == start.config[key]
    assert arm.config.optim_wrapper.optimizer == (
        start.config.optim_wrapper.optimizer
    )
    assert (name in TAUGHT) is ('teachers' in arm.config.model)


def test_data_and_epochs_are_filled_in(tmp_path):
    arm = build_arm('float', 0, DATA, tmp_path, epochs=2)
    cfg = arm.config
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.train_dataloader.dataset.data_root == '/data/'
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (160, 160)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (160, 160)
    assert arm.checkpoint.name == 'epoch_2.pth'


def test_teacher_backbone_changes_the_teacher_only(tmp_path):
    backbone = tmp_path / 'b.pth'
    teacher = build_arm('teacher', 0, DATA, tmp_path, backbone=backbone)
    student = build_arm('gor', 0, DATA, tmp_path, backbone=backbone)
    assert teacher.config.model.backbone.init_cfg.checkpoint == str(backbone)
    assert student.config.model.backbone.init_cfg is None
    assert list(student.config.model.teachers) == ['mbv2']


def test_an_ensemble_knows_its_teachers(tmp_path):
    weights = tmp_path / 'yolox.pth'
    arm = build_arm('ekd', 1, DATA, tmp_path, yolox=weights)
    assert arm.config.model.teachers == {
        name: dict(
            config=str(tmp_path / folder / 'config.py'),
            checkpoint=str(tmp_path / folder / 'epoch_12.pth'),
        )
        for name, folder in TEACHERS.items()
    }
    heads = list(arm.config.model.kd_heads.values())
    assert heads[0].teacher == list(TEACHERS)
    yolox = build_arm('yolox', 0, DATA, tmp_path, yolox=weights)
    assert yolox.config.load_from == str(weights)
    assert yolox.config.model.bbox_head.num_classes == 2


def test_teacher_without_backbone_is_a_resnet(tmp_path):
    teacher = build_arm('teacher', 0, DATA, tmp_path)
    student = build_arm('gor', 0, DATA, tmp_path)
    assert teacher.config.model.backbone.type == 'ResNet'
    assert list(student.config.model.teachers) == ['r18']
    files = student.config.model.teachers.r18
    assert files.checkpoint == str(teacher.checkpoint)
    kd = student.config.model.kd_heads.neck
    channels = teacher.config.model.neck.out_channels
    assert kd.teacher_channels == channels


def test_a_finished_arm_counts_only_for_its_config(tmp_path):
    arm = build_arm('float', 0, DATA, tmp_path)
    assert arm.result() is None
    arm.work_dir.mkdir()
    arm.checkpoint.write_bytes(b'')
    result = dict(mAP=0.5, AP50=0.7, hash=arm.hash)
    arm.result_file.write_text(json.dumps(result))
    assert arm.result() == result
    assert build_arm('float', 0, DATA, tmp_path, epochs=12).hash == arm.hash
    arm.result_file.write_text(json.dumps(dict(result, hash='other')))
    assert arm.result() is None


def test_a_student_of_another_teacher_is_another_arm(tmp_path):
    teacher = build_arm('teacher', 0, DATA, tmp_path)
    student = build_arm('gor', 0, DATA, tmp_path)
    before = student.hash
    assert before == build_arm('gor', 0, DATA, tmp_path).hash
    teacher.work_dir.mkdir()
    teacher.result_file.write_text('{"mAP": 0.5}')
    assert student.hash != before


def test_lines_that_are_not_progress_are_left_out():
    assert condense('Saving checkpoint at 3 epochs') is None
    usual = '11/21 10:00:00 - mmengine - WARNING - FileClient will be'
    assert condense(usual) is None
    warning = '11/21 10:00:00 - mmengine - WARNING - a weight collapsed'
    assert condense(warning) == 'warning: a weight collapsed'


def test_sizes_of_float_and_quantized_student(tmp_path):
    plain = model_size(build_arm('float', 0, DATA, tmp_path).config)
    low = model_size(build_arm('gor', 0, DATA, tmp_path).config)
    assert (plain['bits'], low['bits']) == ('float32', 'W4A4')
    assert plain['params'] == low['params']
    assert plain['bytes'] == plain['float_bytes']
    assert 6 < plain['bytes'] / low['bytes'] < 8


def test_spread_and_table():
    assert spread([39.14]) == '39.1'
    assert spread([38.0, 39.0, 40.0]) == '39.0 +- 1.0'
    row = dict(
        title='student',
        mAP=[40.0],
        AP50=[60.0],
        bits='W4A4',
        params=1234,
        bytes=2_500_000,
    )
    lines = format_rows([row]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert '| student | 40.0 | 60.0 | W4A4 | 1,234      | 2.50' in lines[2]
