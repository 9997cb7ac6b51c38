"""The virtual CUDA device refuses and waits as a real one does."""

import pytest
import torch
from torch import nn

from tests.support.virtual_cuda import virtual_cuda

HOST, SCALAR = torch.arange(3.0), torch.tensor(2.0)
REFUSED = {
    'operands': lambda x: x + HOST,
    'a scalar of the device in a tensor of the host': lambda x: HOST * x.sum(),
    'written into a scalar of the host': lambda x: SCALAR.add_(x.sum()),
    'joined': lambda x: torch.stack([x.sum(), SCALAR]),
    'an index of the device': lambda x: HOST[x.long()],
    'a gathered index': lambda x: x.gather(0, HOST.long()),
    'a convolution': lambda x: nn.functional.linear(x, HOST[None]),
    'a generator of the host': lambda x: torch.rand(
        3, device=x.device, generator=torch.Generator()
    ),
}
TAKEN = {
    'a scalar of the host': lambda x: x * SCALAR,
    'a choice': lambda x: torch.where(x > 0, x, SCALAR),
    'a number': lambda x: torch.where(x > 0, 1.0, x),
    'a new one beside it': lambda x: x + torch.zeros(3, device=x.device),
    'its like': lambda x: x + torch.ones_like(x).new_full((3,), 2),
    'a bound': lambda x: x.clamp(x.min(), x.max()),
}
WAITS = {
    'value': lambda x: bool(x.sum() > 0),
    'copy': lambda x: x.cpu(),
    'tolist': lambda x: x.tolist(),
    'nonzero': lambda x: x.nonzero(),
    'mask': lambda x: x[x > 0],
    'masked_select': lambda x: x.masked_select(x > 0),
    'unique': lambda x: x.unique(),
    'index from the host': lambda x: x[torch.tensor([0, 2])],
}
COPIES = {
    'new_tensor': lambda x: x.new_tensor([1, 2]),
    'tensor': lambda x: torch.tensor([1, 2], device=x.device),
    'to': lambda x: HOST.to(x.device),
    'to another': lambda x: HOST.to(x),
    'copy_': lambda x: x.copy_(HOST),
    'foreach': lambda x: torch._foreach_copy_([x], [HOST]),
}
NO_WAIT = {
    'scalar under a mask': lambda x: x.masked_fill_(x > 1, 0.0),
    'to a mask': lambda x: x.__setitem__(x > 1, 0.0),
    'a slice': lambda x: x.__setitem__(slice(0, 1), 5.0),
    'non_blocking': lambda x: HOST.to(x.device, non_blocking=True),
    'sorted': lambda x: x.sort().values.cumsum(0),
}


def parameters(cases):
    return pytest.mark.parametrize('case', cases.values(), ids=list(cases))


def on_device(case):
    """Result of the lines, and how often the host waited."""
    with virtual_cuda() as device:
        x = torch.arange(3.0, device='cuda')
        device.stock_waits.clear()
        out = case(x)
        whats = [line.split(' ', 1)[1] for line in device.stock_waits]
        return out, whats


@parameters(REFUSED)
def test_what_cuda_refuses(case):
    with pytest.raises(RuntimeError, match=r'same device|for generator'):
        on_device(case)


@parameters(TAKEN)
def test_what_cuda_takes(case):
    out, waits = on_device(case)
    assert out.is_cuda and waits == []


@pytest.mark.parametrize('what', list(WAITS))
def test_what_the_host_waits_for(what):
    assert on_device(WAITS[what])[1] == [what]


@parameters(COPIES)
def test_copies_wait(case):
    assert on_device(case)[1] == ['copy']


@parameters(NO_WAIT)
def test_what_the_host_leaves_behind(case):
    assert on_device(case)[1] == []


def test_gradients_cross_the_border():
    with virtual_cuda():
        x = torch.tensor([3.0], requires_grad=True)
        (x.cuda().square().cpu() * 2).backward()
        layer = nn.Linear(1, 1).to('cuda')
        layer(x.detach().cuda()).sum().backward()
        assert layer.weight.grad.is_cuda
        layer.to('cpu')
    assert x.grad.item() == 12
    assert layer.weight.grad.item() == 3
