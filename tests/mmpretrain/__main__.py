"""How much of MMPretrain's and timm's backbones stays in float, as a table.

    python -m tests.mmpretrain

Each backbone is wrapped with random weights and runs on noise, unrounded.
"""

import copy
from typing import Any

import mmpretrain.models  # noqa: F401
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmgor.quantization import BaseQuantizer, PassThrough, counting_macs
from mmgor.quantization import quantized_layers as quantized
from mmgor.quantization.coverage import float_shares
from mmgor.registry import MODELS
from tests.support.backbones import timm

SIDE = 64
_FOUR = (0, 1, 2, 3)
#: timm's names, apart from those that take one size.
TIMM = """
mobilenetv3_small_050 mobilenetv4_conv_small mobilenetv4_hybrid_medium
efficientnet_lite0 tf_efficientnet_lite0 efficientnet_b0 tinynet_e lcnet_050
mnasnet_small fbnetv3_b ghostnet_050 ghostnetv2_100 hardcorenas_a
convnext_atto convnextv2_atto inception_next_atto edgenext_xx_small
mobilevit_xxs repvit_m0_9 efficientvit_b0 fastvit_t8 starnet_s1 mobileone_s0
hgnetv2_b0 poolformerv2_s12 caformer_s18 mambaout_femto pvt_v2_b0 resnet18
resnet50 resnet18d ecaresnet26t seresnet18 skresnet18 resnest14d regnetx_002
regnety_002 repvgg_a0 hrnet_w18_small cspdarknet53 dla34 vovnet39a densenet121
res2net50_26w_4s resnetv2_50 resnetv2_50x1_bit nf_regnet_b0 nfnet_l0
dm_nfnet_f0 eca_nfnet_l0
"""
SIZED = 'swin_tiny_patch4_window7_224 swinv2_tiny_window8_256'
#: MMPretrain's types, with their arguments.
MMPRETRAIN: dict[str, dict] = {
    'ConvNeXt': dict(arch='atto', gap_before_final_norm=False),
    'SwinTransformer': dict(arch='tiny', pad_small_map=True),
    'SwinTransformerV2': dict(arch='tiny', pad_small_map=True),
    'MobileNetV2': dict(out_indices=(1, 2, 4, 6)),
    'MobileNetV3': dict(arch='small', out_indices=(0, 3, 8, 12)),
    'EfficientNet': dict(arch='b0', out_indices=(2, 3, 4, 5)),
    'EfficientNetV2': dict(arch='b0', out_indices=(2, 3, 4, 5)),
    'RepVGG': dict(arch='A0'),
    'MobileOne': dict(arch='s0'),
    'RegNet': dict(arch='regnetx_400mf'),
    'CSPDarkNet': dict(depth=53, out_indices=(1, 2, 3, 4)),
    'EdgeNeXt': dict(arch='xxsmall', gap_before_final_norm=False),
    'PoolFormer': dict(arch='s12', out_indices=(0, 2, 4, 6)),
    'VAN': dict(arch='tiny'),
    'HorNet': dict(arch='tiny', gap_before_final_norm=False),
    'MobileViT': dict(arch='xx_small', out_indices=(1, 2, 3, 4)),
    'ShuffleNetV2': dict(out_indices=(0, 1, 2)),
    'Res2Net': dict(depth=50, scales=4, base_width=14),
    'PCPVT': dict(arch='small'),
}
_WITHOUT_INDICES = ('PCPVT',)


def main() -> None:
    MMLogger.get_instance('table', log_level='ERROR')
    init_default_scope('mmdet')
    print('| backbone | layers | weights in float | MACs in float | why |')
    print('|---|---|---|---|---|')
    for name in TIMM.split():
        print(row(f'timm {name}', timm(name)), flush=True)
    for name in SIZED.split():
        print(row(f'timm {name}', timm(name, img_size=SIDE)), flush=True)
    for name, kwargs in MMPRETRAIN.items():
        if name not in _WITHOUT_INDICES:
            kwargs = dict(out_indices=_FOUR) | kwargs
        config = dict(type=f'mmpretrain.{name}', **kwargs)
        print(row(name, config), flush=True)


def row(name: str, config: dict) -> str:
    """One line of the table."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    config = dict(config, type='QuantBackbone', backbone=config['type'])
    model: Any = MODELS.build(config)
    model.eval()  # MMPretrain's backbones do not return themselves
    for module in model.modules():
        if isinstance(module, BaseQuantizer):
            module.observer = PassThrough()
    with torch.no_grad(), counting_macs(model) as macs:
        model(torch.randn(1, 3, SIDE, SIDE))
    layers = quantized(model)
    silent = sum(not macs[name] for name in layers)
    shares = float_shares(model, macs)
    why = [share.cause for share in shares]
    why += [f'{silent} layers are never called'] if silent else []
    weights = sum(share.weights for share in shares)
    count = sum(share.macs for share in shares)
    causes = '; '.join(why)
    return (
        f'| {name} | {len(layers)} | {weights:.1%} | {count:.1%} | {causes} |'
    )


if __name__ == '__main__':
    main()
