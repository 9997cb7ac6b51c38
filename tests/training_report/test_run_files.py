"""The files of a training are found in its folder."""

import pytest

from mmgor.training_report.run_files import find_run, find_teachers


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('')
    return path


def test_everything_is_found(tmp_path):
    logs = [
        touch(tmp_path / f'2026112{day}_100000' / 'vis_data' / 'scalars.json')
        for day in (1, 2)
    ]
    touch(tmp_path / 'student.py')
    old = touch(logs[0].with_name('config.py'))
    new = touch(logs[1].with_name('config.py'))
    # 10 comes after 9, though not in the alphabet.
    checkpoints = [touch(tmp_path / f'epoch_{n}.pth') for n in (9, 10)]
    best = touch(tmp_path / 'best_coco_bbox_mAP_epoch_9.pth')
    touch(tmp_path / '.epoch_11.4711.tmp.pth')
    # As written before the folder was moved.
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_10.pth')
    run = find_run(tmp_path)
    assert (run.logs, run.config, run.best) == (logs, new, best)
    assert run.checkpoints == checkpoints
    new.unlink()
    assert find_run(tmp_path).config == old
    old.unlink()
    assert find_run(tmp_path).config == tmp_path / 'student.py'


def test_checkpoints_of_an_earlier_training_are_left_out(tmp_path):
    new = [touch(tmp_path / f'epoch_{n}.pth') for n in (2, 3)]
    touch(tmp_path / 'epoch_12.pth')
    (tmp_path / 'last_checkpoint').write_text(str(new[1]))
    assert find_run(tmp_path).checkpoints == new
    (tmp_path / 'last_checkpoint').write_text('')
    for path in tmp_path.glob('epoch_*.pth'):
        path.unlink()
    touch(tmp_path / 'best_epoch_1.pth')
    assert find_run(tmp_path).checkpoints == []


@pytest.mark.parametrize('made', [True, False])
def test_a_folder_without_a_training_is_refused(tmp_path, made):
    folder = tmp_path / 'run'
    if made:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match='work directory'):
        find_run(folder)


def test_teachers_of_the_heads():
    teacher = dict(config='t.py', checkpoint='t.pth')
    heads = dict(a=dict(teacher='x'), b=dict(teacher=['x', 'y']))
    model = dict(teachers=dict(x=teacher, y=teacher), kd_heads=heads)
    taught = find_teachers(dict(model=model))
    assert taught.teachers == dict(x='t.pth', y='t.pth')
    assert taught.heads == dict(a=['x'], b=['x', 'y'])
    # A single teacher need not be named.
    alone = dict(teachers=dict(x=teacher), kd_heads=dict(a={}))
    assert find_teachers(dict(model=alone)).heads == dict(a=['x'])
    assert find_teachers(dict(model=dict(type='ATSS'))).teachers == {}
