"""MMYOLO's shipped configs become students by mmgor convert."""

import copy

import pytest
from mmengine.config import Config

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.mmyolo_students import CLASSES, STUDENTS, shipped, tiny

pytest.importorskip('mmyolo')


@pytest.mark.parametrize('name', list(STUDENTS))
def test_a_student(name, tmp_path):
    cfg = copy.deepcopy(shipped(name))
    cfg.model = tiny(name)
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        dataset.metainfo = dict(classes=CLASSES)
    base, out = tmp_path / 'float.py', tmp_path / 'student.py'
    cfg.dump(base)
    request = Request(str(base), out, epochs=10)
    trial = convert(request, lambda _: None)
    # No box of noise may fit a level of random weights.
    assert all('bbox_head' in layer for layer in trial.still)
    student = Config.fromfile(out)
    assert student.train_cfg.max_epochs == 10
    assert student.optim_wrapper.optimizer.type == 'AdamW'
    hook = student.default_hooks.get('param_scheduler') or {}
    assert hook.get('warmup_bias_lr', 0.0) == 0.0
    stock = cfg.default_hooks.get('param_scheduler') or {}
    for key in {'max_epochs', 'total_epochs'} & set(stock):
        assert hook[key] == stock[key] * 10 // cfg.train_cfg.max_epochs
    layers = quantized_layers(MODELS.build(student.model))
    assert len(layers) == trial.quantized > 30
