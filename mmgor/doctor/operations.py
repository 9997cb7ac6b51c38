"""Checks that compiled operators really run, on the CPU and on a GPU."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from mmcv.ops import nms
from torch import Tensor, nn

from mmgor.quantization.quantizers import functional

from .environment import build_mmcv
from .findings import ERROR, OK, WARNING, Finding, guarded

_COMPILER = (
    'install a C++ compiler, e.g. apt-get install g++; on a GPU: '
    'pip install triton'
)


def operation_findings() -> Iterator[Finding]:
    """Operators of mmcv, compiled kernels and the GPU."""
    devices = [torch.device('cpu')]
    if torch.cuda.is_available():
        devices.append(torch.device('cuda'))
        name = torch.cuda.get_device_name()
        memory = torch.cuda.get_device_properties(0).total_memory
        count = torch.cuda.device_count()
        yield Finding(OK, 'GPU', f'{count} x {name}, {memory / 1e9:.0f} GB')
    else:
        yield _no_gpu()
    for device in devices:
        what = f'mmcv.ops.nms on {device.type}'
        yield from guarded(what, partial(_nms, device), build_mmcv())
        what = f'convolution on {device.type}'
        yield from guarded(what, partial(_convolution, device))
        what = f'torch.compile on {device.type}'
        for found in guarded(what, partial(_compiled, device), _COMPILER):
            # Training goes on without it.
            yield (
                found
                if found.status == OK
                else Finding(
                    WARNING,
                    what,
                    'quantizers run uncompiled, several times slower '
                    f'({found.found.splitlines()[0]})',
                    _COMPILER,
                )
            )


def _no_gpu() -> Finding:
    card = shutil.which('nvidia-smi') or Path('/dev/nvidia0').exists()
    if not card:
        return Finding(OK, 'GPU', 'none; everything runs on the CPU')
    return Finding(
        WARNING,
        'GPU',
        f'this machine has one, but torch {torch.__version__} (CUDA '
        f'{torch.version.cuda}) does not see it',
        'install a driver for that CUDA version, or a build of torch for '
        "CUDA; then build mmcv's operators again",
    )


def _nms(device: torch.device) -> Iterator[Finding]:
    # IoU of the first two: 81 / 119.
    boxes = [[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]]
    _, kept = nms(
        torch.tensor(boxes, dtype=torch.float32, device=device),
        torch.tensor([0.9, 0.8, 0.7], device=device),
        iou_threshold=0.5,
    )
    yield _compared(
        f'mmcv.ops.nms on {device.type}',
        kept.float(),
        torch.tensor([0.0, 2.0]),
        build_mmcv(),
    )


def _convolution(device: torch.device) -> Iterator[Finding]:
    """The gradient of a convolution's weight, against its definition."""
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    layer = nn.Conv2d(2, 3, 1, bias=False).to(device)
    layer(x.to(device)).sum().backward()
    grad = layer.weight.grad
    assert grad is not None
    expected = x.sum((0, 2, 3)).expand(3, 2)[..., None, None]
    what = f'convolution on {device.type}'
    yield _compared(what, grad, expected, 'install torch again')


def _compiled(device: torch.device) -> Iterator[Finding]:
    """The kernel that rounds in training."""
    x = torch.linspace(-3, 3, 31, device=device)
    step = torch.tensor(0.25, device=device)
    low, high = (torch.tensor(n, device=device) for n in (-7, 7))
    arguments = x, step, None, low, high
    kernel = torch.compile(functional.fake_quantize, dynamic=True)
    yield _compared(
        f'torch.compile on {device.type}',
        kernel(*arguments),
        functional.fake_quantize(*arguments),
        _COMPILER,
    )


def _compared(
    what: str, found: Tensor, expected: Tensor, mend: str
) -> Finding:
    found, expected = found.detach().cpu(), expected.cpu()
    if found.shape == expected.shape and torch.allclose(found, expected):
        return Finding(OK, what, 'runs, and its result is right')
    return Finding(
        ERROR,
        what,
        f'expected {expected.flatten().tolist()[:4]}, got '
        f'{found.flatten().tolist()[:4]}',
        mend,
    )
