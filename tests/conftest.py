"""Shared fixtures: a tiny student and teacher, a tiny data set.

Compiling quantizers takes longer than these tests, so they run uncompiled.
``tests/quantization/quantizers/test_compiled.py`` compares the two.
"""

import os
import resource
import signal
from collections.abc import Iterator

os.environ.setdefault('TORCHDYNAMO_DISABLE', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer

import mmgor  # noqa: F401
from mmgor.distillation.teachers import fast_form
from tests.support.models import make_batch, retinanet_cfg

torch.set_num_threads(1)
register_all_modules()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker('gpu'):
            item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))


@pytest.fixture(scope='session', autouse=True)
def plain_config_text() -> Iterator[None]:
    """Skip yapf: every Runner formats its config several times, which takes
    longer than the training of a test."""
    with pytest.MonkeyPatch.context() as patch:
        # onedl-mmengine imports the function again at each call.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(
                f'{module}.FormatCode',
                lambda text, **_: (text, True),
                raising=False,
            )
        yield


@pytest.fixture(scope='session', autouse=True)
def teachers_in_float32() -> Iterator[None]:
    """On every machine, whether it has units for bfloat16 or not; and their
    forms are tried on a small image, since hundreds are built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_form, 'has_bfloat16', lambda device: False)
        patch.setattr('mmgor.distillation.teachers.teacher._NOISE', 64)
        yield


@pytest.fixture(scope='module', autouse=True)
def as_in_a_new_process() -> None:
    """Start every test module in mmdet's scope and without a visualizer: a
    Runner changes the one and leaves the other, with its work directory."""
    init_default_scope('mmdet')
    for kind in (Visualizer, DetLocalVisualizer):
        kind._instance_dict.clear()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Writing beyond 64 KiB per file fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def batch() -> dict:
    return make_batch()


@pytest.fixture(scope='session')
def teacher_spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Config and checkpoint of a tiny float teacher, on disk."""
    from mmgor.registry import MODELS

    torch.manual_seed(1)
    cfg = retinanet_cfg(channels=12, fpn=24)
    # The first test that asks for this fixture may be in another scope.
    model = MODELS.build(dict(cfg, _scope_='mmdet'))
    model.init_weights()
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return dict(
        config=dict(model=retinanet_cfg(channels=12, fpn=24)),
        checkpoint=str(path),
    )
