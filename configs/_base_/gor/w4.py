"""Distillation with GoR, for a stock float config that becomes W4A4.

    _base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', '../_base_/gor/w4.py']
    _base_.merge(_base_.pop('gor'))
    quant = _base_.quant

distillation.py explains the second line. The config then wraps the backbone,
neck and head of the student (``QuantBackbone``, ``QuantNeck``, ``QuantHead``)
and adds ``detector``, ``teachers`` and ``kd_heads``.
"""

_base_ = './distillation.py'
custom_imports = dict(imports=['mmgor'], allow_failed_imports=False)

# The first convolution and the prediction layers have 8 bits.
quant = dict(w_bits=4, a_bits=4)
gor = dict(
    optim_wrapper=dict(
        # Under SGD, step sizes hardly move (docs/design.md).
        optimizer=dict(
            _delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05
        ),
        # Weight decay would pull the step sizes towards 1 (their log to 0).
        paramwise_cfg=dict(custom_keys={'_quantizer.': dict(decay_mult=0.0)}),
    ),
    # Writes checkpoints atomically, with a checksum.
    default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook')),
)
