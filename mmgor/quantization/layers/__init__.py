"""Quantized convolutions and linears.

``quant_layers.py`` has torch's own layers, ``variants.py`` those of mmcv and
mmdet.
"""
