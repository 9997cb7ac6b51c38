"""As yolox_nano_w8_from_nano.py, at W4A4; boxes are distilled, too. Start from
the W6A6 student:

    --cfg-options load_from=work_dirs/yolox_nano_w6_from_nano/epoch_2.pth
"""

_base_ = './yolox_nano_w8_from_nano.py'

quant = dict(w_bits=4, a_bits=4)
model = dict(
    backbone=dict(quant=quant),
    neck=dict(quant=quant),
    bbox_head=dict(quant=quant),
    kd_heads=dict(box=dict(type='BoxKDHead')),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
