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
from functools import partial
from itertools import product
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.models.detectors import DetectionTransformer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .forward import dense_outputs, tapped_heads

AUTO = 'auto'
DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}
# Mean difference relative to the root mean square of an output. bfloat16 has
# 8 bits; RetinaNets differed by 0.001 to 0.008.
_SAME = {None: 1e-3, torch.bfloat16: 0.03}
#: What gives the features. Its weights may be in bfloat16; heads also have to
#: give boxes in float32.
FEATURES = ('backbone', 'neck')
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
        """A block in which layers compute in ``dtype``."""
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
    noise: Tensor,
    taps: Sequence[str],
) -> tuple[nn.Module, Form, list[str], str]:
    """Bring a detector into the first form that keeps its outputs.

    Args:
        model (nn.Module): Frozen, in evaluation mode.
        forms (Sequence[Form]): At least one. The last is taken unseen.
        noise (Tensor): An input, shape (1, C, H, W).
        taps (Sequence[str]): Paths of modules whose outputs will be read.
            Heads without a tap keep their weights as they are. Batch norm is
            not folded if a tap is a convolution.

    Returns:
        tuple[nn.Module, Form, list[str], str]: A detector, ``model`` itself
        if nothing is faster; its form; the heads that were tried; and why
        the first form was not taken ('' if it was).
    """
    modules = {p: m for p, m in model.named_modules() if p in taps}
    fold = not any(isinstance(m, nn.Conv2d) for m in modules.values())
    heads = tapped_heads([*modules])
    if isinstance(model, DetectionTransformer):
        heads = []  # its head runs on queries
    parts = [
        n for n in (*FEATURES, *heads) if getattr(model, n, None) is not None
    ]
    run = partial(dense_outputs, inputs=noise, heads=heads)
    # Quantizers have this attribute; their weights are on a grid.
    if any(hasattr(module, 'calibrated') for module in model.modules()):
        forms, fold = forms[-1:], False
    try:
        wanted = run(Form(), model)
    except Exception as error:  # a stock class may raise anything
        reason = f'it could not be tried on noise ({_text(error)})'
        return _in_form(model, forms[-1], parts), forms[-1], heads, reason
    for part in parts if fold else ():
        folded = partial(_folded, model, part)
        model = _same(folded, Form(), wanted, run)[0] or model
    reason = ''
    for form in forms[:-1]:
        changed = partial(_in_form, model, form, parts)
        found, misfit = _same(changed, form, wanted, run)
        if found is not None:
            return found, form, heads, reason
        reason = reason or f'in {form}, {misfit}'
    return _in_form(model, forms[-1], parts), forms[-1], heads, reason


def _in_form(model: Any, form: Form, parts: Sequence[str]) -> nn.Module:
    """A copy in which the weights of some parts have a form; the detector
    itself if that changes nothing."""
    if form == Form():
        return model
    found = copy.deepcopy(model)
    for name in parts:
        part = getattr(found, name)
        if form.channels_last:
            part.to(memory_format=torch.channels_last)
        if form.dtype is None or name not in FEATURES:
            continue
        for layer in part.modules():
            if type(layer) in _CAST:
                layer.to(form.dtype)
    return found


def _folded(model: nn.Module, name: str) -> nn.Module:
    """A copy in which batch norm of one part is folded."""
    found = copy.deepcopy(model)
    fuse_conv_bn(getattr(found, name))
    return found


def _same(
    change: Callable[[], nn.Module],
    form: Form,
    wanted: Any,
    run: Callable[[Form, Any], Any],
) -> tuple[nn.Module | None, str]:
    """A changed detector if its outputs are the same, and else how they
    differ."""
    try:
        model = change()
        got = run(form, model)
    except Exception as error:  # an operator without such a kernel, or a
        return None, _text(error)  # convolution that has no batch norm
    pairs = zip(_numbers(wanted), _numbers(got), strict=True)
    apart = max((_difference(a, b) for a, b in pairs), default=0.0)
    most = _SAME[form.dtype]
    if apart <= most:
        return model, ''
    return None, f'its outputs differ by {apart:.1%} (at most {most:.1%})'


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
