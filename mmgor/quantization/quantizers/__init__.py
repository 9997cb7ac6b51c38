"""Quantizers, which round one tensor each: a weight or a layer's input.

``functional.py`` rounds. ``base.py`` holds what all quantizers share, and each
kind of quantizer has a file of its own: ``lsq.py``, ``pact.py``, ``dorefa.py``
and ``minmax.py``.
"""
