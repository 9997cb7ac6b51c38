"""Shared fixtures: a tiny student and teacher, a tiny data set.

Compiling quantizers takes longer than these tests; they run the plain
composition. ``tests/quantization/test_compiled.py`` compares the two.
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
from mmengine.registry import init_default_scope

import mmgor  # noqa: F401
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
    """Every Runner writes its config out several times; to lay the text out
    takes yapf longer than the tests train."""
    with pytest.MonkeyPatch.context() as patch:
        # onedl-mmengine imports it anew each time.
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(
                f'{module}.FormatCode',
                lambda text, **_: (text, True),
                raising=False,
            )
        yield


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope() -> None:
    """A Runner leaves its scope behind; every module starts in mmdet's."""
    init_default_scope('mmdet')


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process end at 64 KiB, as on a disk that is full."""
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
    # Whatever scope the first test that asks for it has.
    model = MODELS.build(dict(cfg, _scope_='mmdet'))
    model.init_weights()
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return dict(
        config=dict(model=retinanet_cfg(channels=12, fpn=24)),
        checkpoint=str(path),
    )
