"""The float student, trained as long as the quantized ones from the same
checkpoint; also the teacher."""

_base_ = '../_base_/models/yolox_nano_r320.py'
