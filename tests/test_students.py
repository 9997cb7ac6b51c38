"""Stock detectors of every family train for a few iterations at W4A4."""

import copy

import pytest
import torch
from torch import nn

from mmgor.quantization import calibrate, quantized_layers
from mmgor.registry import MODELS
from tests.support.models import make_batch
from tests.support.students import STUDENTS, quantized, student_of_itself, tiny

# Modules of transformers that stay in float.
FLOAT_IN_DETR = {'sampling_offsets', 'attention_weights', 'out_proj'}
ITERATIONS = 3


@pytest.mark.parametrize('name', list(STUDENTS))
@pytest.mark.slow
def test_a_few_iterations(name, tmp_path):
    torch.manual_seed(0)
    cfg = student_of_itself(name, tmp_path)
    model = MODELS.build(cfg)
    model.init_weights()
    model.map_classes(None)
    batch = make_batch(side=128)
    calibrate(
        model, [copy.deepcopy(batch)], lambda b: model(**b, mode='tensor')
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(ITERATIONS):
        loss, outputs = model.parse_losses(model(**batch, mode='loss'))
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert {f'loss_kd_{key}' for key in cfg.kd_heads} <= set(outputs)
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    stock = [
        key
        for key, layer in model.named_modules()
        if isinstance(layer, layers)
        and not hasattr(layer, 'weight_quantizer')
        and not key.startswith('kd_heads.')
    ]
    if 'decoder' in cfg:
        assert {key.split('.')[-1] for key in stock} == FLOAT_IN_DETR
    else:
        assert stock == []
    idle = [
        key
        for key, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    # MobileNetV2 always has a last layer, which YOLOv3 does not use.
    assert [k for k in idle if not k.startswith('backbone.conv2.')] == []


@pytest.mark.parametrize(
    'name, scales',
    [
        ('atss/atss_r50_fpn_1x_coco', {5}),
        ('yolox/yolox_nano_8xb8-300e_coco', {1}),
        # Shared convolutions; batch norms and predictions per level.
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco', {1, 3}),
        # The region proposal network is shared, the box head is not.
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', {1, 5}),
    ],
)
def test_scales_per_level_and_per_channel(name, scales):
    layers = quantized_layers(MODELS.build(quantized(tiny(name))))
    head = {k: q for k, q in layers.items() if 'head' in k}
    assert {q.input_quantizer.num_scales for q in head.values()} == scales
    depthwise = 0
    for layer in layers.values():
        channels = layer.channels_first().shape[0]
        assert layer.weight_quantizer.num_scales == channels
        depthwise += getattr(layer, 'groups', 1) == channels > 1
    assert (depthwise > 0) is name.startswith(('yolox', 'rtmdet'))
