"""Missing or unfit packages are named; checkpoints load with weights_only."""

import logging
import pickle
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmgor.compat import (
    check_versions,
    history_method,
    silence_known_noise,
    silence_log,
)

OPENMMLAB = dict(
    torch='2.13.0+cpu', mmengine='0.10.7', mmcv='2.1.0', mmdet='3.3.0'
)
ONEDL = {
    'torch': '2.13.0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
}


def check(environment, ops_error=None):
    def lookup(names):
        return next((environment[n] for n in names if n in environment), None)

    check_versions(lookup, lambda: ops_error)


@pytest.mark.parametrize('environment', [OPENMMLAB, ONEDL])
def test_both_stacks_pass(environment):
    check(environment)


@pytest.mark.parametrize('package', list(OPENMMLAB))
def test_missing_package_is_named_with_both_commands(package):
    environment = {k: v for k, v in OPENMMLAB.items() if k != package}
    with pytest.raises(ImportError, match=f'needs {package}>=') as caught:
        check(environment)
    message = str(caught.value)
    assert 'not installed' in message
    assert 'MMCV_WITH_OPS=1 pip install' in message
    assert 'mmcv==2.1.0' in message and 'onedl-mmcv==2.3.6' in message


@pytest.mark.parametrize(
    'package, version',
    [
        ('torch', '2.5.1'),
        ('torch', '3.0.0'),
        ('mmengine', '0.10.3'),
        ('mmengine', '1.0.0'),
        ('mmcv', '1.7.2'),
        ('mmcv', '2.4.0'),
        ('mmdet', '2.28.2'),
        ('mmdet', '4.0.0'),
    ],
)
def test_unfit_version_is_named(package, version):
    with pytest.raises(
        ImportError, match=f'{package}>=.*, found {version}[.]'
    ):
        check({**OPENMMLAB, package: version})


def test_mmcv_too_new_for_mmdet_3_3_is_named_before_mmdet_asserts():
    with pytest.raises(
        ImportError,
        match=r'mmcv>=2\.0\.0,<2\.2 next to mmdet 3\.3\.0, found 2\.2\.0',
    ):
        check({**OPENMMLAB, 'mmcv': '2.2.0'})


def test_everything_that_is_wrong_is_named_at_once():
    with pytest.raises(ImportError) as caught:
        check(dict(torch='2.5.1', mmengine='0.10.7', mmcv='2.2.0'))
    message = str(caught.value)
    assert 'torch>=2.6,<3, found 2.5.1.' in message
    assert 'mmdet>=3.3.0,<4, which is not installed.' in message
    assert 'mmengine' not in message.partition('\nInstall')[0]
    assert message.count('MMCV_WITH_OPS=1') == 2  # one for each stack


def test_mmcv_without_operators_is_named():
    with pytest.raises(
        ImportError,
        match=r'(?s)mmcv 2\.1\.0 failed: No module.*MMCV_WITH_OPS=1',
    ):
        check(OPENMMLAB, "No module named 'mmcv._ext'")


def test_missing_torch_is_reported_by_import_mmgor():
    code = textwrap.dedent("""
        import sys
        from importlib import metadata

        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] == 'torch':
                    raise ModuleNotFoundError(name)

        version = metadata.version

        def without_torch(name):
            if name == 'torch':
                raise metadata.PackageNotFoundError(name)
            return version(name)

        sys.meta_path.insert(0, NoTorch())
        metadata.version = without_torch
        import mmgor
    """)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'mmgor needs torch>=2.6,<3, which is not installed' in done.stderr


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.linear(inputs)
        return dict(loss=out.square().mean()) if mode == 'loss' else out


@pytest.fixture(scope='module')
def training_checkpoint(tmp_path_factory):
    """A checkpoint of mmengine's Runner after two iterations."""
    work_dir = tmp_path_factory.mktemp('toy')
    Runner(
        Toy(),
        str(work_dir),
        dict(
            dataset=[dict(inputs=torch.ones(2))] * 4,
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=2),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name='toy_compat',
        log_level='ERROR',
    ).train()
    return work_dir / 'epoch_1.pth'


def test_training_checkpoint_loads_with_weights_only(training_checkpoint):
    checkpoint = torch.load(training_checkpoint, weights_only=True)
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    history, counts = losses.data
    assert history.dtype == np.float64 and len(history) == 2
    assert counts.tolist() == [1, 1]
    assert losses.statistics('mean') == history.mean()


def test_without_the_allow_list_it_does_not(training_checkpoint):
    code = (
        'import torch\n'
        'try:\n'
        f'    torch.load({str(training_checkpoint)!r}, weights_only=True)\n'
        'except Exception as error:\n'
        '    print(type(error).__name__)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.stdout.strip() == 'UnpicklingError'


class Attack:
    """A pickle that tries to reach attributes of an allowed class."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_checkpoint_cannot_reach_other_attributes(tmp_path):
    path = tmp_path / 'attack.pth'
    torch.save(dict(state_dict={}, hub=Attack()), path)
    with pytest.raises(pickle.UnpicklingError, match='__init__'):
        torch.load(path, weights_only=True)


def test_history_method_gives_statistics_of_history_buffers_only():
    assert history_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(pickle.UnpicklingError, match="attribute 'mean'"):
        history_method(np.ndarray, 'mean')


@pytest.mark.slow
def test_known_noise_and_nothing_else_is_left_out():
    """In a new process, since pytest has warning filters of its own."""
    code = textwrap.dedent(
        """
        import logging, warnings
        import mmgor
        from mmengine.utils import is_installed
        is_installed('torch')
        warnings.warn('pkg_resources is gone')
        exporter = logging.getLogger(
            'torch.onnx._internal.exporter._registration')
        exporter.warning('torchvision is not installed. Skipping %s', 'nms')
        exporter.warning('torchvision is too old')
        """
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'deprecated as an API' not in done.stderr
    assert 'pkg_resources is gone' in done.stderr
    assert 'Skipping' not in done.stderr
    assert 'torchvision is too old' in done.stderr


EXAMPLES = [
    (
        '`torch.cuda.amp.autocast(args...)` is deprecated. Please use ...',
        FutureWarning,
        'mmdet.models.backbones.csp_darknet',
    ),
    (
        'torch.meshgrid: in an upcoming release, it will be required ...',
        UserWarning,
        'torch.functional',
    ),
    (
        '`isinstance(treespec, LeafSpec)` is deprecated, use ...',
        FutureWarning,
        'copyreg',
    ),
    (
        'Warning: The bbox is out of bounds, the drawn bbox may ...',
        UserWarning,
        'mmengine.visualization.visualizer',
    ),
    (
        'DeprecationWarning: `num_anchors` is deprecated, for ...',
        UserWarning,
        'mmdet.models.dense_heads.anchor_head',
    ),
]


@pytest.mark.parametrize('text, category, module', EXAMPLES)
def test_noise_is_silenced_where_it_comes_from(text, category, module):
    def warn(where, message=text):
        warnings.warn_explicit(message, category, 'x.py', 1, module=where)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        silence_known_noise()
        warn(module)
        assert seen == []
        warn('of_a_user')
        warn(module, 'another message')
        assert len(seen) == 2


def test_a_log_keeps_what_is_no_noise(caplog):
    logger = logging.getLogger('of a runner')
    silence_log(logger)
    logger.warning('"FileClient" will be deprecated in future. Please use')
    logger.warning('the loss is not finite')
    assert caplog.messages == ['the loss is not finite']
