"""Which operations a quantizer runs besides its fused kernels."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmgor.quantization.quantizers import compiled
from mmgor.registry import MODELS

VIEWS = {'view', 'detach', 'unsqueeze', 'select', 'squeeze', 'alias'}


class Kernels(TorchDispatchMode):
    """Records the operations outside of the fused functions."""

    def __init__(self):
        super().__init__()
        self.names = []
        self.fused = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix('aten::')
        if not self.fused and name not in VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))

    def around(self, function):
        def fused(*args):
            self.fused = True
            try:
                return function(*args)
            finally:
                self.fused = False

        return fused


@pytest.mark.parametrize('per_channel', [False, True])
def test_a_learned_step_needs_two_small_operations(per_channel, monkeypatch):
    """s = exp(t), and the factor 1 / sqrt(N Q) of its gradient."""
    kernels = Kernels()
    for name in ('_forward', '_backward'):
        fused = kernels.around(getattr(compiled, name).function)
        monkeypatch.setattr(compiled, name, fused)
    quantizer = MODELS.build(
        dict(
            type='LSQQuantizer',
            bits=4,
            num_scales=8 if per_channel else 1,
            per_channel=per_channel,
            for_weight=per_channel,
        )
    )
    quantizer.choose_range(signed=True)
    x = torch.randn(8, 4, 3, 3, requires_grad=True)
    with kernels:
        y = quantizer(x)
        y.backward(torch.ones_like(y))
    assert kernels.names == ['exp', 'ones_like', 'mul']
