"""YOLOX-nano in float, fine-tuned from the same checkpoint and for as many
epochs as the quantized students. It is also the config of their teacher."""

_base_ = '../_base_/models/yolox_nano_r320.py'
