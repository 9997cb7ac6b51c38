"""MMYOLO's detectors train for a step and detect at W4A4 and W8A8."""

import re
from functools import partial

import pytest
import torch
from mmengine.dataset import pseudo_collate

from mmgor.hooks.student import run_losses
from mmgor.quantization import calibrate, quantized_layers
from mmgor.registry import MODELS
from tests.support.mmyolo_students import (
    STUDENTS,
    batch,
    items,
    quantized,
    tiny,
    vary,
)

pytest.importorskip('mmyolo')
# Their assigners may give no object to a level of random weights.
FOLLOWS_PREDICTIONS = ('ppyoloe', 'rtmdet', 'yolox')


def student(name, **quant):
    torch.manual_seed(0)
    model = MODELS.build(quantized(tiny(name), **quant))
    vary(model)
    calibrate(model, [batch(name)], partial(run_losses, model))
    return model


@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('name', list(STUDENTS))
def test_a_step(name, bits):
    model = student(name, w_bits=bits, a_bits=bits)
    layers = quantized_layers(model)
    stock = [
        key
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and key not in layers
    ]
    assert not stock
    assert {q.weight_quantizer.bits for q in layers.values()} == {bits, 8}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    losses = model(**model.data_preprocessor(batch(name), True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    assert all(g.isfinite().all() for g in gradients.values())
    idle = [k for k, g in gradients.items() if not g.any()]
    idle = [k for k in idle if k.endswith('log_scale')]
    if name in FOLLOWS_PREDICTIONS:
        idle = [k for k in idle if not k.startswith('bbox_head.')]
    assert idle == []
    optimizer.step()
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(pseudo_collate(items()))
        found = model(**data, mode='predict')
    assert len(found) == 2
    for sample in found:
        boxes = sample.pred_instances.bboxes
        assert boxes.isfinite().all() and boxes.shape[1] == 4
        assert len(boxes) > 0


#: Names of the layers that predict, without the number of their level.
PREDICTIONS = dict(
    yolov5={'convs_pred'},
    yolov6={'cls_preds', 'reg_preds'},
    yolov7={'convs_pred..1'},
    yolov8={'cls_preds..2', 'reg_preds..2'},
    ppyoloe={'cls_preds', 'reg_preds'},
    rtmdet={'rtm_cls', 'rtm_reg'},
    yolox={f'multi_level_conv_{k}' for k in ('cls', 'reg', 'obj')},
)


@pytest.mark.parametrize('name', list(STUDENTS))
def test_prediction_layers_have_eight_bits(name):
    head = MODELS.build(quantized(tiny(name)).bbox_head)
    names = {
        key.removeprefix('head_module.')
        for key, layer in quantized_layers(head).items()
        if layer.weight_quantizer.bits == 8
    }
    assert len(names) == 3 * len(PREDICTIONS[name])
    without = {re.sub(r'\.\d(?=\.|$)', '.', k, count=1) for k in names}
    assert {k.rstrip('.') for k in without} == PREDICTIONS[name]
