import subprocess
import sys

import pytest

from mmgor.compat import check_versions

GOOD = {
    'torch': '2.13.0+cpu',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
}


def check(ops=True, **versions):
    found = {**GOOD, **versions}
    check_versions(lambda names: found[names[0]], lambda: ops)


def test_both_lines_are_accepted():
    check()
    check(mmengine='0.10.12', mmcv='2.3.6', mmdet='3.5.1')


@pytest.mark.parametrize(
    'versions, message',
    [
        (dict(mmcv=None), r'mmcv>=2\.0\.0,<2\.4, which is not installed'),
        (dict(mmdet='2.28.2'), r'mmdet>=3\.3\.0,<4, found 2\.28\.2'),
        (dict(torch='2.1.0'), r'torch>=2\.6,<3, found 2\.1\.0'),
        (dict(mmengine='1.0.0'), r'mmengine>=0\.10\.4,<1, found 1\.0\.0'),
    ],
)
def test_what_does_not_fit_is_named_with_the_remedy(versions, message):
    with pytest.raises(ImportError, match=message) as caught:
        check(**versions)
    assert 'pip install' in str(caught.value)


def test_mmcv_without_operators():
    with pytest.raises(ImportError, match='compiled operators'):
        check(ops=False)


SCRIPT = """
import sys, torch
from mmengine.logging.history_buffer import HistoryBuffer
buffer = HistoryBuffer()
buffer.update(1.0)
torch.save(dict(message_hub=dict(loss=buffer)), sys.argv[1])
if sys.argv[2] == 'allow':
    from mmgor.compat import allow_mmengine_checkpoints
    allow_mmengine_checkpoints()
torch.load(sys.argv[1], weights_only=True)
"""


@pytest.mark.parametrize('mode, works', [('allow', True), ('bare', False)])
def test_mmengine_checkpoints_load(tmp_path, mode, works):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(tmp_path / 'x.pth'), mode],
        capture_output=True,
        text=True,
    )
    if works:
        assert done.returncode == 0, done.stderr
    else:
        # mmgor's package is not imported here; torch refuses on its own.
        assert 'Unsupported global' in done.stderr
