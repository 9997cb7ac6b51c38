"""Backbones of MMPretrain and timm at small sizes."""

import copy
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from tests.support.models import retinanet_cfg

SIZE = (128, 128)
_STAGES = (0, 1, 2, 3)
_NEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
    out_indices=_STAGES,
    gap_before_final_norm=False,
)


def timm(name: str, **kwargs: Any) -> dict:
    """A backbone of timm, with maps of strides 4 to 32."""
    return dict(
        type='mmpretrain.TIMMBackbone',
        model_name=name,
        features_only=True,
        **kwargs,
    )


#: Name -> its config and the channels of its maps, strides 4 to 32.
BACKBONES: dict[str, tuple[dict, list[int]]] = {
    'ConvNeXt': (_NEXT, [8, 16, 32, 64]),
    # GRN, and pointwise convolutions instead of linears.
    'ConvNeXt V2': (
        dict(
            _NEXT,
            use_grn=True,
            layer_scale_init_value=0.0,
            linear_pw_conv=False,
        ),
        [8, 16, 32, 64],
    ),
    'Swin': (
        dict(
            type='mmpretrain.SwinTransformer',
            arch=dict(
                embed_dims=8, depths=[2, 2, 1, 1], num_heads=[1, 2, 2, 2]
            ),
            img_size=64,
            window_size=4,
            pad_small_map=True,
            drop_path_rate=0.0,
            out_indices=_STAGES,
        ),
        [8, 16, 32, 64],
    ),
    'MobileNetV3': (
        dict(
            type='mmpretrain.MobileNetV3',
            arch='small_050',
            out_indices=(1, 3, 8, 12),
        ),
        [8, 16, 24, 288],
    ),
    'timm MobileNetV4': (
        timm('mobilenetv4_conv_small_035', out_indices=(1, 2, 3, 4)),
        [16, 24, 32, 336],
    ),
    # Activations in the norms, squeeze and excitation.
    'timm MobileNetV3': (
        timm('mobilenetv3_small_050', out_indices=(1, 2, 3, 4)),
        [8, 16, 24, 288],
    ),
    'timm EfficientNet-lite': (
        timm('tf_efficientnet_lite0', out_indices=(1, 2, 3, 4)),
        [24, 40, 112, 320],
    ),
    'timm ConvNeXt V2': (
        timm('convnextv2_atto', depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)),
        [8, 16, 32, 64],
    ),
}


def float_model(name: str) -> ConfigDict:
    """A RetinaNet whose head reads all four maps of a backbone."""
    backbone, channels = copy.deepcopy(BACKBONES[name])
    model = retinanet_cfg()
    model.backbone = ConfigDict(backbone)
    model.neck = ConfigDict(
        type='FPN', in_channels=channels, out_channels=16, num_outs=4
    )
    model.bbox_head.anchor_generator.strides = [4, 8, 16, 32]
    return model


def student(name: str, **quant: Any) -> Config:
    """A config of the same RetinaNet with backbone, neck and head wrapped."""
    model = float_model(name)
    for part in ('backbone', 'neck', 'bbox_head'):
        kind = part.rpartition('_')[2]
        stock = model[part].pop('type')
        model[part].update({'type': f'Quant{kind.title()}', kind: stock})
        model[part].quant = dict(quant)
    return Config(dict(model=model))


def vary(model: torch.nn.Module) -> None:
    """Give norms the factors and statistics that a training may leave.

    Residual branches start from a factor of 0, or of 1e-6 in ConvNeXt, so
    that nothing inside of them would matter.
    """
    for key, parameter in model.backbone.named_parameters():
        if parameter.dim() == 1 and not key.endswith('bias'):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    norms: list[Any] = [
        m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)
    ]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, *SIZE))
    for norm in norms:
        norm.momentum = 0.1
