"""Every shipped config builds, and is what its name says."""

import re
from pathlib import Path

import mmdet
import mmengine
import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmgor.quantization import quantized_layers
from mmgor.registry import HOOKS, MODELS

ROOT = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(
    path for path in ROOT.glob('*/*.py') if path.parent.name != '_base_'
)
BITS = {
    'w8': (8, 8),
    'w6': (6, 6),
    'w4a8': (4, 8),
    'w4': (4, 4),
    'w2': (2, 2),
}


def test_there_are_configs():
    assert len(CONFIGS) >= 12


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path):
    cfg = Config.fromfile(path)
    assert cfg.default_hooks.checkpoint.type == 'SafeCheckpointHook'
    assert 'gor' not in cfg, 'add _base_.merge(_base_.pop("gor"))'
    model = MODELS.build(cfg.model)
    for hook in cfg.get('custom_hooks', []):
        hook.pop('priority', None)  # for the Runner, not for the hook
        HOOKS.build(hook)
    name = next((p for p in path.stem.split('_') if p in BITS), None)
    layers = quantized_layers(model)
    assert bool(layers) is (name is not None)
    if name is None:
        return
    bits = {
        (q.weight_quantizer.bits, q.input_quantizer.bits)
        for q in layers.values()
    }
    assert bits == {BITS[name], (8, 8)}
    assert ('_from_' in path.stem) is hasattr(model, 'teachers')
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    spared = {
        key: parameter
        for key, parameter in model.named_parameters()
        if '_quantizer.' in key or key.startswith('gor_weighting.')
    }
    decays = {
        id(p): group['weight_decay']
        for group in optimizer.param_groups
        for p in group['params']
    }
    for parameter in spared.values():
        assert decays.get(id(parameter), 0) == 0
        assert not parameter.requires_grad or id(parameter) in decays


ZOO = Path(mmdet.__file__).parent / '.mim' / 'configs'


def zoo_weights(stock):
    """What the model zoo lists for a config such as 'mmdet::fcos/x.py'."""
    name = stock.removeprefix('mmdet::')
    listed = mmengine.load(ZOO / Path(name).parent / 'metafile.yml')
    models = listed['Models'] if isinstance(listed, dict) else listed
    return next(
        m['Weights'] for m in models if m['Config'] == f'configs/{name}'
    )


GOR_CONFIGS = sorted((ROOT / 'gor').glob('*.py'))
# Students whose first base is a stock config, with the name of that.
STOCK = {
    path.stem: stock[1]
    for path in GOR_CONFIGS
    if (stock := re.search(r"_base_ = \[?\s*'(mmdet::.+?)'", path.read_text()))
}


@pytest.mark.parametrize('path', GOR_CONFIGS, ids=lambda p: p.stem)
def test_teachers_have_the_checkpoints_of_their_configs(path):
    for teacher in Config.fromfile(path).model.teachers.values():
        if '://' in teacher.checkpoint:
            assert teacher.checkpoint == zoo_weights(teacher.config)


def test_there_are_stock_students():
    assert len(STOCK) >= 10


@pytest.mark.parametrize('name', STOCK)
def test_stock_students_start_from_the_checkpoint_of_their_config(name):
    cfg = Config.fromfile(ROOT / 'gor' / f'{name}.py')
    assert cfg.load_from == zoo_weights(STOCK[name])


def test_gor_settings_are_merged_into_the_stock_config():
    cfg = Config.fromfile(ROOT / 'gor' / 'atss_r50_w4_from_r101.py')
    neck = cfg.model.neck
    assert (neck.type, neck.neck) == ('QuantNeck', 'FPN')
    assert neck.quant == dict(w_bits=4, a_bits=4)
    assert neck.in_channels == [256, 512, 1024, 2048]  # ATSS-R50's own
    # No key of the stock SGD, such as momentum, is left.
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {
        '_quantizer.': dict(decay_mult=0.0),
        'gor_weighting.': dict(decay_mult=0.0),
    }
    assert [hook.type for hook in cfg.custom_hooks] == [
        'QuantCalibrationHook',
        'GoRWeightHook',
        'NonFiniteLossHook',
        'ReportHook',
    ]


def test_demo_arms_share_schedule_and_data():
    demo = [
        Config.fromfile(path)
        for path in CONFIGS
        if path.parent.name == 'demo' and 'r18half' in path.stem
    ]
    assert len(demo) == 9
    for key in ('train_cfg', 'param_scheduler', 'train_dataloader'):
        assert all(cfg[key] == demo[0][key] for cfg in demo)
