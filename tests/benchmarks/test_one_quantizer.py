"""benchmarks/one_quantizer.py: every quantizer at hand rounds."""

import one_quantizer
import torch


def test_each_rounds_to_sixteen_levels(monkeypatch):
    shapes = {'activation': (2, 3, 8, 8), 'weight': (4, 3, 3, 3)}
    monkeypatch.setattr(one_quantizer, 'SHAPES', shapes)
    monkeypatch.setattr(one_quantizer, 'WARM_UP', 0)
    for kind, shape in shapes.items():
        times, missing = one_quantizer.measure(kind, rounds=2)
        assert len(times) + len(missing) == len(one_quantizer.MAKERS)
        assert all(len(values) == 2 for values in times.values())
        x = torch.randn(shape)
        names = ['mmgor_lsq', 'mmgor_minmax', 'mmgor_plain', 'torch_learnable']
        if kind == 'activation':
            names.append('mmgor_lsq_plus')
        for name in names:
            rounded = getattr(one_quantizer, name)(x)(x)
            row = rounded[0] if kind == 'weight' else rounded
            assert 2 < row.unique().numel() <= 16, name
