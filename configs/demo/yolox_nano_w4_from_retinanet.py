"""QAT of YOLOX-nano with one teacher, a RetinaNet: class-score maps and boxes.

The teacher gets the same images, normalized as its own config says. Its
strides of 64 and 128 px teach nothing, since YOLOX has none of them.
"""

_base_ = ['./yolox_nano_w4.py', '../_base_/gor/distillation.py']
_base_.merge(_base_.pop('gor'))

model = dict(
    detector='YOLOX',
    teachers=dict(retinanet=dict(config='', checkpoint='filled in by a plan')),
    kd_heads=dict(
        cls=dict(type='ScoreKDHead'),
        box=dict(type='BoxKDHead'),
    ),
)
