"""The logged weights are read and plotted."""

import pytest

from mmgor.hooks.weight_plot import plot_weight_curves, read_scalars
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
