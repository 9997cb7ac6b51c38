"""Logs of a training are read, also those of a resumed one."""

import json

import pytest

from mmgor.io.training_log import (
    GOR_PANELS,
    main_metric,
    read_scalars,
    read_training_log,
    teacher_keys,
)


def written(folder, name, records, end='\n'):
    path = folder / name
    path.write_text('\n'.join(map(json.dumps, records)) + end)
    return path


def train(step, epoch=1, **values):
    return dict(loss=1.0, step=step, epoch=epoch, **values)


def evaluated(step, value=0.5):
    return {'coco/bbox_mAP': value, 'step': step}


def test_broken_scalars_name_the_line(tmp_path):
    path = tmp_path / 'scalars.json'
    good = json.dumps(dict(gor_w_kd=1.0, step=1))
    for broken in ('{oops', '5', '{"gor_w_kd": 1.0}'):
        path.write_text(f'{good}\n{broken}\n')
        with pytest.raises(ValueError, match=r'line 2: expected .* a step'):
            read_scalars(path)
    path.write_bytes(b'\xff\xfe\x00\n')
    with pytest.raises(ValueError, match='line 1: expected'):
        read_scalars(path)


def test_a_line_without_its_end_is_left_out(tmp_path):
    path = written(tmp_path, 'a', [train(1)])
    path.write_text(path.read_text() + '{"loss": 1.0, "st')
    assert read_scalars(path) == [train(1)]
    path.write_text('')
    assert read_scalars(path) == []


def test_a_resumed_training_replaces_what_it_repeats(tmp_path):
    first = [train(10), train(20), evaluated(1), train(30, 2), train(40, 2)]
    resumed = [train(30, 2, again=1), evaluated(2), train(50, 3)]
    paths = [written(tmp_path, 'a', first), written(tmp_path, 'b', resumed)]
    log = read_training_log(paths)
    assert log.records == [
        train(10),
        train(20),
        train(30, 2, again=1),
        train(50, 3),
    ]
    assert log.evaluations == [evaluated(1), evaluated(2)]
    assert log.unit == 'epoch'


def test_a_training_from_the_start_replaces_all(tmp_path):
    first = [train(10), evaluated(1)]
    paths = [
        written(tmp_path, 'a', first),
        written(tmp_path, 'b', [evaluated(0)]),  # an evaluation alone
        written(tmp_path, 'c', [train(10, again=1)]),
    ]
    log = read_training_log(paths)
    assert log.records == [train(10, again=1)]
    assert log.evaluations == []


def test_of_a_calibration_alone_the_evaluation_counts(tmp_path):
    paths = [written(tmp_path, 'a', [evaluated(0, 0.1)])]
    paths.append(written(tmp_path, 'b', [evaluated(0, 0.2)]))
    log = read_training_log(paths)
    assert log.evaluations == [evaluated(0, 0.2)]
    assert (log.records, log.unit) == ([], 'iteration')
    assert read_training_log([]).evaluations == []


def test_without_epochs_evaluations_have_the_iteration(tmp_path):
    records = [
        dict(loss=1.0, step=10),
        evaluated(0),
        dict(loss=1.0, step=20),
        evaluated(0),
    ]
    log = read_training_log([written(tmp_path, 'a', records)])
    assert [each['step'] for each in log.evaluations] == [10, 20]
    assert log.unit == 'iteration'


def test_the_main_metric_is_that_of_boxes():
    def names(*keys):
        return main_metric([dict.fromkeys([*keys, 'step', 'time'], 0.1)])

    assert names('coco/segm_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP') == (
        'coco/bbox_mAP'
    )
    assert names('pascal_voc/mAP') == 'pascal_voc/mAP'
    assert names() is None
    assert main_metric([]) is None


def test_every_teacher_has_a_key():
    records = [dict(gor_w_kd=1.0, gor_w_kd_atss=0.4, gor_raw_kd_atss=2.0)]
    weights, losses, thetas = (panel[3] for panel in GOR_PANELS[:3])
    assert teacher_keys(records, weights) == {'gor_w_kd_atss': 'atss'}
    assert teacher_keys(records, losses) == {'gor_raw_kd_atss': 'atss'}
    assert teacher_keys(records, thetas) == {}
