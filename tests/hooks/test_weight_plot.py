"""The logged weights are read and plotted."""

import json

import pytest

from mmgor.hooks.weight_plot import (
    PANELS,
    _teacher_keys,
    plot_weight_curves,
    read_scalars,
)
from tests.support.toy_game import run


def test_scalars_and_curves_are_written(tmp_path):
    run(tmp_path, dict(type='SGD', lr=0.01, weight_decay=1e-4), 20)
    scalars = next(tmp_path.glob('*/vis_data/scalars.json'))
    records = read_scalars(scalars)
    assert len(records) == 20
    assert {'gor_w_task', 'gor_w_kd', 'gor_theta_kd', 'gor_distance'} <= set(
        records[0]
    )
    assert (tmp_path / 'gor_weights.png').stat().st_size > 10000


def test_plot_without_gor_keys(tmp_path):
    with pytest.raises(ValueError, match='no gor_'):
        plot_weight_curves([dict(loss=1.0)], tmp_path / 'x.png')


def test_broken_scalars_name_the_line(tmp_path):
    path = tmp_path / 'scalars.json'
    good = json.dumps(dict(gor_w_kd=1.0, step=1))
    for broken in ('{oops', '5', '{"gor_w_kd": 1.0}'):
        path.write_text(f'{good}\n{broken}\n')
        with pytest.raises(ValueError, match=r'line 2: expected .* a step'):
            read_scalars(path)


def test_every_teacher_has_a_curve():
    records = [dict(gor_w_kd=1.0, gor_w_kd_atss=0.4, gor_raw_kd_atss=2.0)]
    weights, losses, thetas = (panel[3] for panel in PANELS[:3])
    assert _teacher_keys(records, weights) == {'gor_w_kd_atss': 'atss'}
    assert _teacher_keys(records, losses) == {'gor_raw_kd_atss': 'atss'}
    assert _teacher_keys(records, thetas) == {}
