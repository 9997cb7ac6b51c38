"""Gives a frozen detector a form that runs faster.

Batch norm is folded into convolutions, memory is laid out channels-last, and
convolutions compute in bfloat16 where the device has units for it. On a CPU
with such units, a RetinaNet took 0.27 of its time in float32
(docs/results/step_time.md).

An operator may not know a form. So each form runs on noise first, and its
outputs are compared with those of the plain detector.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .forward import HEADS

AUTO = 'auto'
DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}
# Mean difference relative to the root mean square of an output. bfloat16 has
# 8 bits; RetinaNets differed by 0.001 to 0.008.
_SAME = {None: 1e-3, torch.bfloat16: 0.03}
# Compute in bfloat16 alone; heads also have to give boxes in float32.
_CAST_PARTS = ('backbone', 'neck')
_CAST = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Form:
    """How a teacher computes.

    Attributes:
        dtype (torch.dtype, optional): Of the autocast region; None: float32.
        channels_last (bool): Whether weights and inputs have the
            channels-last memory format.
    """

    dtype: torch.dtype | None = None
    channels_last: bool = False

    def __str__(self) -> str:
        name = next(k for k, v in DTYPES.items() if v is self.dtype)
        return f'{name}, channels-{"last" if self.channels_last else "first"}'

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """A block in which layers compute in :attr:`dtype`."""
        enabled = self.dtype is not None
        with torch.autocast(device.type, self.dtype, enabled=enabled):
            yield

    def inputs(self, images: Tensor) -> Tensor:
        """Images, shape (N, C, H, W), in the memory format."""
        if not self.channels_last:
            return images
        return images.contiguous(memory_format=torch.channels_last)


def possible_forms(
    dtype: str, channels_last: bool | str, device: torch.device
) -> list[Form]:
    """The forms that settings allow on a device, the fastest first.

    Args:
        dtype (str): One of :data:`DTYPES`, or 'auto'.
        channels_last (bool | str): True, False or 'auto'.
        device (torch.device): Where the teacher runs.
    """
    half = has_bfloat16(device)
    dtypes = [DTYPES['bfloat16']] if half else []
    dtypes = [*dtypes, None] if dtype == AUTO else [DTYPES[dtype]]
    layouts = [True, False]
    if isinstance(channels_last, bool):
        layouts = [channels_last]
    return [Form(*pair) for pair in product(dtypes, layouts)]


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has units that multiply bfloat16."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known: Any = getattr(torch.cpu, 'get_capabilities', dict)()
    return device.type == 'cpu' and bool(known.get('avx512_bf16'))


def choose_form(
    model: nn.Module,
    forms: Sequence[Form],
    run: Callable[[Any, Form], Any],
    taps: Sequence[str] = (),
) -> tuple[nn.Module, Form, str]:
    """Bring a detector into the first form that keeps its outputs.

    Args:
        model (nn.Module): Frozen, in evaluation mode.
        forms (Sequence[Form]): At least one. The last is taken unseen.
        run (Callable): Gets a detector and its form, and returns the outputs
            for noise.
        taps (Sequence[str]): Paths of modules whose outputs are needed. If a
            convolution is among them, batch norm is not folded.

    Returns:
        tuple[nn.Module, Form, str]: A detector, ``model`` itself if nothing
        is faster, its form, and why the first form was not taken ('' if it
        was).
    """
    reason = ''
    modules = dict(model.named_modules())
    foldable = not any(isinstance(modules.get(p), nn.Conv2d) for p in taps)
    # Quantizers have this attribute; their weights are on a grid.
    if any(hasattr(module, 'calibrated') for module in modules.values()):
        forms, foldable = forms[-1:], False
    try:
        wanted = run(model, Form())
    except Exception as error:  # a stock class may raise anything
        form = forms[-1]
        return in_form(model, form), form, _text(error)
    if foldable:
        folded = _folded(copy.deepcopy(model))
        if not _misfit(wanted, folded, Form(), run):
            model = folded
    for form in forms[:-1]:
        found = in_form(copy.deepcopy(model), form)
        misfit = _misfit(wanted, found, form, run)
        if not misfit:
            return found, form, reason
        reason = reason or misfit
    return in_form(model, forms[-1]), forms[-1], reason


def in_form(model: Any, form: Form) -> nn.Module:
    """Change a detector's weights to a form, in place."""
    if form.channels_last:
        model.to(memory_format=torch.channels_last)
    if form.dtype is not None:
        for part in _parts(model, _CAST_PARTS):
            for layer in part.modules():
                if type(layer) in _CAST:
                    layer.to(form.dtype)
    return model


def _folded(model: nn.Module) -> nn.Module:
    """Fold batch norm in all that ``run`` shows, in place."""
    for part in _parts(model, (*_CAST_PARTS, *HEADS)):
        fuse_conv_bn(part)
    return model


def _parts(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    found = (getattr(model, name, None) for name in names)
    return [part for part in found if isinstance(part, nn.Module)]


def _misfit(
    wanted: Any,
    model: nn.Module,
    form: Form,
    run: Callable[[Any, Form], Any],
) -> str:
    """How the outputs of a form differ; '' if they are the same."""
    try:
        got = run(model, form)
    except Exception as error:  # an operator without such a kernel
        return _text(error)
    pairs = zip(_numbers(wanted), _numbers(got), strict=True)
    apart = max((_difference(a, b) for a, b in pairs), default=0.0)
    most = _SAME[form.dtype]
    if apart <= most:
        return ''
    return f'its outputs differ by {apart:.1%}, at most {most:.1%} is usual'


def _numbers(outputs: Any) -> list[Tensor]:
    return [
        leaf.float()
        for leaf in tree_leaves(outputs)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]


def _difference(wanted: Tensor, got: Tensor) -> float:
    """Mean absolute difference, relative to the root mean square; infinite
    if it is no number."""
    apart = (wanted - got).abs().mean()
    size = wanted.square().mean().sqrt()
    share = float(apart / size) if size > 0 else float(apart)
    return share if share == share else float('inf')


def _text(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
