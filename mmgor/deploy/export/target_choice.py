"""Chooses the target of a file, and refuses ranges that it can't have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmgor.io.config_reader import model_config
from mmgor.listing import listed
from mmgor.quantization import (
    BaseQuantizer,
    GivenQuantizer,
    fused_silus,
    tensor_quantizers,
)
from mmgor.targets import TARGETS, find_target

_DIMS = 4


def choose_target(
    name: str | None, cfg: Config, path: Path, int4: bool
) -> str | None:
    """The target that a file is written for.

    If none is named, it is the one that the config's ``quant`` names. If that
    one reads no such files, or if there is none, it is the first of the table
    that reads them: 'litert' for ``.tflite``. An ``.onnx`` or ``.xml`` file
    has no target if the config names none and rounds only inputs of layers.

    Args:
        name (str, optional): A key of :data:`~mmgor.targets.TARGETS`.
        cfg (Config): Config of the detector.
        path (Path): File to be written.
        int4 (bool): Whether weights are to be stored as int4.

    Returns:
        str | None: A key of :data:`~mmgor.targets.TARGETS`.

    Raises:
        ValueError: If there is no such target, if it does not read such a
            file, if its weights can't be int4, or if parts of the config
            name different targets.
    """
    chosen = _configured(cfg, path) if name is None else name
    if chosen is None:
        return None
    target = find_target(chosen)
    if path.suffix not in target.suffixes:
        reads = ' or '.join(target.suffixes)
        raise ValueError(
            f'target {chosen!r} expected a file name ending in {reads}, got '
            f'{path}. Type --out {path.with_suffix(target.suffixes[0])}'
            f'{_others(path.suffix)}.'
        )
    if int4 and not target.int4:
        raise ValueError(
            f'int4=True expected a target that reads int4, got {chosen!r}. '
            'Leave out --int4 (int4=False).'
        )
    return chosen


def _others(suffix: str) -> str:
    """Advice: the targets that read files of a suffix."""
    names = [name for name, t in TARGETS.items() if suffix in t.suffixes]
    return f', or --target with one of {names}' if names else ''


def _configured(cfg: Config, path: Path) -> str | None:
    quants = _quants(model_config(cfg))
    names = {quant['target'] for quant in quants if quant.get('target')}
    if len(names) > 1:
        raise ValueError(
            f'the parts of the model name different targets: {sorted(names)}; '
            'expected one. Type --target NAME for the file, and give '
            'all parts the same quant=dict(target=...).'
        )
    named = next(iter(names), None)
    if named is not None and path.suffix in find_target(named).suffixes:
        return named
    rounds_all = any(quant.get('tensors') == 'all' for quant in quants)
    if path.suffix in TARGETS['x86'].suffixes:
        return 'x86' if rounds_all or named is not None else None
    reading = (n for n, t in TARGETS.items() if path.suffix in t.suffixes)
    return next(reading, named)


def _quants(model: dict) -> list[dict[str, Any]]:
    """The ``quant`` of the model and of each of its parts."""
    parts = [model, *(p for p in model.values() if isinstance(p, dict))]
    return [part['quant'] for part in parts if part.get('quant')]


def check_grids(model: nn.Module, name: str) -> None:
    """Make sure that a target can have all roundings of a trained model.

    Args:
        model (nn.Module): With calibrated quantizers.
        name (str): A key of :data:`~mmgor.targets.TARGETS`.

    Raises:
        ValueError: If it can't; the message names the layers.
    """
    target = TARGETS[name]
    if target.tensors == 'inputs' and tensor_quantizers(model):
        raise ValueError(
            f'{name} rounds the inputs of layers alone, but this model was '
            "trained with tensors='all'. "
            f'{_trained_for(name)}'
        )
    fused = [] if target.fuse_silu else fused_silus(model)
    if fused and target.tensors == 'all':
        raise ValueError(
            f'{name} rounds what SiLU reads, but this model was trained for a '
            'runtime that computes it inside the layer before: '
            f'{listed(fused)}. {_trained_for(name)}'
        )
    wrong: dict[str, list[str]] = {}
    for layer, quantizer in activation_quantizers(model):
        for slot in range(quantizer.num_slots):
            grid = quantizer.grid(torch.zeros([1] * _DIMS), slot)
            found = _unfit(
                grid.scale.dim() > 0 and not target.per_channel_inputs,
                target.symmetric_inputs and bool(grid.zero_point.any()),
                target.symmetric_inputs and grid.qmax > 127,
            )
            for text in found:
                if layer not in wrong.setdefault(text, []):
                    wrong[text].append(layer)
    if wrong:
        lines = '; '.join(
            f'{text}: {listed(layers)}' for text, layers in wrong.items()
        )
        raise ValueError(
            f'{name} can not have the trained ranges of activations. {lines}. '
            f'{_trained_for(name)}'
        )


def _trained_for(name: str) -> str:
    return (
        f'Expected a model trained with quant=dict(target={name!r}): '
        'python tools/train.py CONFIG --cfg-options '
        f"'model.backbone.quant.target={name}' and the same for neck and "
        'bbox_head.'
    )


def _unfit(per_channel: bool, offset: bool, unsigned: bool) -> Iterator[str]:
    if per_channel:
        yield 'a scale per channel (per_channel_depthwise) is refused'
    if offset:
        yield 'an offset (LSQPlusQuantizer) is refused'
    if unsigned and not offset:
        yield 'an unsigned range of 8 bits is refused (at most 7 fit)'


def activation_quantizers(
    model: nn.Module,
) -> Iterator[tuple[str, BaseQuantizer]]:
    """Each quantizer of activations with a grid of its own, with the path of
    its layer."""
    for name, module in model.named_modules():
        if (
            isinstance(module, BaseQuantizer)
            and not isinstance(module, GivenQuantizer)
            and not module.for_weight
        ):
            yield name.removesuffix('.input_quantizer'), module
