"""QAT without KD: RetinaNet-R18 at W4A4."""

_base_ = '../_base_/models/retinanet_r18_quant.py'
