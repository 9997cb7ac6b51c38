"""Dense heads of mmdet and MMYOLO, read in one layout.

Distillation and the exported graph both read heads through this package:
``spec`` (how a head classifies, its strides and anchors), ``scores`` and
``boxes`` (its outputs, family by family) and ``levels`` (which feature maps
of two models belong together).
"""
