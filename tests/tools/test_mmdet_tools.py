"""mmdet's own tools and functions run on a student, as a user runs them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
from mmdet.apis import DetInferencer
from mmengine.runner import Runner

from mmgor.datasets.shapes import CLASSES
from mmgor.io.config_reader import read_config
from tests.support.models import retinanet_cfg
from tests.support.training import config_file as write_config

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
pytestmark = [
    pytest.mark.skipif(
        not TOOLS.is_dir(), reason='mmdet was installed without its tools'
    ),
    # Boxes beyond the image, operators that are not counted.
    pytest.mark.filterwarnings('ignore::UserWarning'),
]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('config'))


@pytest.fixture(scope='module')
def checkpoint(config):
    """Of a training of two iterations."""
    cfg = read_config(config)
    cfg.work_dir = str(config.parent / 'run')
    Runner.from_cfg(cfg).train()
    return Path(cfg.work_dir) / 'epoch_1.pth'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a tool in an empty folder; its output."""

    def run_tool(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')
        return capsys.readouterr().out

    monkeypatch.setenv('LOCAL_RANK', '0')
    return run_tool


def names(folder):
    return sorted(path.name for path in folder.rglob('*.png'))


EVALUATED = [f'eval_{i:05}.png' for i in range(4)]


def test_augmented_test_with_drawn_detections(
    config, checkpoint, run, tmp_path
):
    """DetVisualizationHook draws; the augmentation is the tool's default."""
    run('test.py', config, checkpoint, '--tta', '--show-dir', 'drawn')
    (scores,) = tmp_path.glob('work_dirs/tiny/2*/2*.json')
    assert 0 <= json.loads(scores.read_text())['coco/bbox_mAP'] <= 1
    assert names(tmp_path) == EVALUATED


def test_browse_dataset(config, run, tmp_path):
    run(
        'analysis_tools/browse_dataset.py',
        *(config, '--output-dir', 'drawn', '--not-show'),
    )
    assert len(names(tmp_path / 'drawn')) == 8


def test_get_flops_counts_the_stock_model(config, run):
    tool = 'analysis_tools/get_flops.py'
    stock = read_config(config)
    stock.model = retinanet_cfg(classes=len(CLASSES))
    stock.dump(config.parent / 'stock.py')

    def flops(shown):
        return [x for x in shown.splitlines() if x.startswith('Flops')]

    found = flops(run(tool, config, '--num-images', '1'))
    assert len(found) == 1
    stock_py = config.parent / 'stock.py'
    assert found == flops(run(tool, stock_py, '--num-images', '1'))


@pytest.mark.parametrize('what', ['plot_curve', 'cal_train_time'])
def test_analyze_logs(what, checkpoint, run, tmp_path):
    pytest.importorskip('seaborn')
    (log,) = checkpoint.parent.glob('2*/vis_data/scalars.json')
    words = [what, log]
    if what == 'plot_curve':
        words += ['--keys', 'gor_w_kd', 'loss', '--out', 'curve.png']
    try:
        shown = run('analysis_tools/analyze_logs.py', *words)
    except OSError as error:
        if "'dark' is not a valid" not in str(error):
            raise
        pytest.skip("its default style is none of this matplotlib's")
    if what == 'plot_curve':
        assert names(tmp_path) == ['curve.png']
    else:
        assert 'average iter time' in shown


def test_inferencer(config, checkpoint, tmp_path):
    inferencer = DetInferencer(str(config), str(checkpoint), device='cpu')
    images = sorted((config.parent / 'scenes' / 'images').glob('eval*'))
    found = inferencer(
        [str(path) for path in images[:2]],
        out_dir=str(tmp_path),
        pred_score_thr=0.0,
        no_save_pred=False,
    )
    assert names(tmp_path / 'vis') == EVALUATED[:2]
    for path, one in zip(images, found['predictions']):
        written = tmp_path / 'preds' / f'{path.stem}.json'
        assert json.loads(written.read_text()) == one
        assert len(one['scores']) == len(one['bboxes']) > 0


@pytest.mark.slow
def test_detector_built_above_a_clone(config, checkpoint, tmp_path):
    """There, the clone is a package without code of the same name."""
    (tmp_path / 'mmgor' / 'mmgor').mkdir(parents=True)
    (image, *_) = (config.parent / 'scenes' / 'images').glob('eval*')
    code = (
        'import sys\n'
        'from mmdet.apis import inference_detector, init_detector\n'
        'config, checkpoint, image = sys.argv[1:]\n'
        "model = init_detector(config, checkpoint, device='cpu')\n"
        'found = inference_detector(model, image).pred_instances\n'
        "print(sys.modules['mmgor'].__file__, len(found) > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code, config, checkpoint, image],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'{ROOT / "mmgor" / "__init__.py"} True' in done.stdout
