"""The summary at the top of the page, in plain words."""

import os.path as osp
from statistics import median
from typing import Any

from torch import nn

from mmgor.io.config_reader import loader_datasets, type_name
from mmgor.io.training_log import TrainingLog, main_metric
from mmgor.pages import bullets, cards
from mmgor.quantization import layer_table
from mmgor.quantization.coverage import float_shares
from mmgor.quantization.report import FLOAT_BITS

from .run_files import find_teachers


def accuracy_cards(log: TrainingLog) -> list[tuple[str, str, str]]:
    """Best and last mAP: name, value and remark."""
    metric = main_metric(log.evaluations)
    known = [
        (each[metric], each['step'])
        for each in log.evaluations
        if metric and each.get(metric, -1) >= 0
    ]
    if not metric or not known:
        return []
    best, step = max(known, key=lambda each: each[0])
    last, end = known[-1]
    return [
        ('Best mAP', f'{100 * best:.1f} %', f'at {log.unit} {step}, {metric}'),
        ('Last mAP', f'{100 * last:.1f} %', f'at {log.unit} {end}'),
    ]


def model_cards(model: nn.Module) -> list[tuple[str, str, str]]:
    """Parameters, bits, float share and packed size."""
    table = layer_table(model)
    total, layers = table['total'], table['layers']
    share = sum(each.weights for each in float_shares(model))
    weights = sum(row['params'] for row in layers)
    mean = sum(row['params'] * row['w_bits'] for row in layers) / weights
    times = total['float_bytes'] / total['bytes']
    return [
        ('Parameters', f'{total["params"] / 1e6:,.2f} M', 'of the student'),
        ('Weight bits', f'{mean:.2f}', 'mean over the weights of all layers'),
        ('Weights in float', f'{100 * share:.1f} %', 'share of all weights'),
        (
            'Packed size',
            f'{total["bytes"] / 1e6:,.2f} MB',
            f'{times:.1f}x smaller than {total["float_bytes"] / 1e6:,.2f} MB '
            'in float32',
        ),
    ]


def story(cfg: Any, log: TrainingLog, model: nn.Module | None) -> list[str]:
    """What was trained, from what, in sentences.

    Args:
        cfg (Config): The config of the training.
        log (TrainingLog): Its log.
        model (nn.Module, optional): The student.
    """
    name = model_name(cfg.model)
    sentences = [f'A detector was trained: {name}{_bits(model)}.']
    start = cfg.get('load_from')
    origin = f'the weights of {start}' if start else 'initial weights'
    if cfg.get('resume'):
        origin += ', or from the checkpoint that it resumed'
    sentences.append(f'It started from {origin}.')
    for loader, what in (('train', 'Training'), ('val', 'Evaluation')):
        files = [
            osp.join(part.get('data_root') or '', part['ann_file'])
            for part in loader_datasets(cfg, f'{loader}_dataloader')
            if isinstance(part, dict) and part.get('ann_file')
        ]
        if files:
            sentences.append(f'{what} images: those of {", ".join(files)}.')
    names = [
        f'{n} ({path})' for n, path in find_teachers(cfg).teachers.items()
    ]
    sentences.append(
        f'It learned from the teacher{"s" if len(names) > 1 else ""} '
        f'{", ".join(names)}.'
        if names
        else 'It had no teacher.'
    )
    sentences.append(_progress(cfg, log))
    return [text for text in sentences if text]


def _bits(model: nn.Module | None) -> str:
    if model is None:
        return ''
    rows = layer_table(model)['layers']
    bits = {
        (r['w_bits'], r['a_bits']) for r in rows if r['w_bits'] < FLOAT_BITS
    }
    if not bits:
        return ' in float'
    low, high = min(bits), max(bits)
    if low == high:
        return f' with weights of {low[0]} and inputs of {low[1]} bits'
    return (
        f' with weights of {low[0]} to {high[0]} and inputs of '
        f'{min(a for _, a in bits)} to {max(a for _, a in bits)} bits'
    )


def _progress(cfg: Any, log: TrainingLog) -> str:
    if not log.records:
        return ''
    last = log.records[-1]
    loop = cfg.get('train_cfg') or {}
    text = f'The log ends at iteration {last["step"]}'
    if 'epoch' in last:
        text += f' in epoch {last["epoch"]}'
        if loop.get('max_epochs'):
            text += f' of {loop["max_epochs"]}'
    elif loop.get('max_iters'):
        text += f' of {loop["max_iters"]}'
    seconds = [r['time'] for r in log.records if 'time' in r]
    if seconds:
        text += f'; an iteration took {median(seconds):.2g} s (median)'
    return text + '.'


def model_name(model: Any) -> str:
    """The detector and its backbone, such as 'RetinaNet (ResNet-18)'."""
    kind = model.get('detector') or type_name(model)
    kind = kind if isinstance(kind, str) else kind.__name__
    backbone = model.get('backbone') or {}
    stock = backbone.get('backbone') or type_name(backbone)
    stock = stock if isinstance(stock, str) else stock.__name__
    depth = backbone.get('depth')
    inner = f'{stock}-{depth}' if depth else stock
    return f'{kind} ({inner})' if inner else kind


def summary(sentences: list[str], figures: list[tuple[str, str, str]]) -> str:
    """The summary: sentences and figures in boxes."""
    return bullets(sentences) + cards(figures)
