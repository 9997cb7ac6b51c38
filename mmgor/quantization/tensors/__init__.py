"""Rounds every tensor of a wrapped module (``quant=dict(tensors='all')``).

A copy of the module runs once at construction, and a tape records which layer
or operation reads which tensor (``tape``). A plan gives every tensor one grid
(``plan``). In each forward pass the operations that read tensors round them
as planned (``rounding``).
"""
