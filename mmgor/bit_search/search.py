"""From a student's checkpoint to the bits of its layers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mmengine.runner import Runner, load_state_dict
from torch import nn

from mmgor.conversion.trial import fitting_weights
from mmgor.hooks.student import run_losses, total_loss
from mmgor.hooks.training_batches import batch_size
from mmgor.io.checkpoint_reader import protect_loading, read_state_dict
from mmgor.quantization import (
    calibrate,
    layer_table,
    quantized_layers,
    without_rounding,
)
from mmgor.quantization.sensitivity import BITS, Sensitivity, sensitivities

from .assignment import assign_bits
from .budget import Budget

#: Steps of the mean bits that a search by mAP tries.
STEP = 0.25

#: Layer -> {'w_bits': ..., 'a_bits': ...}.
Bits = dict[str, dict[str, int]]


@dataclass
class Found:
    """The result of a search.

    Attributes:
        bits (dict): Layer -> ``w_bits`` and ``a_bits``.
        sensitivities (list[Sensitivity]): What each would cost.
        size (int): Bytes of the packed file.
    """

    bits: Bits
    sensitivities: list[Sensitivity]
    size: int


def search_bits(
    cfg: Any,
    checkpoint: str,
    budget: Budget,
    num_batches: int,
    say: Callable[[str], None],
) -> Found:
    """Find the bits that meet a budget at the least expected loss.

    Args:
        cfg (Config): Of a student. Changed in place.
        checkpoint (str): Its weights, in float or quantized.
        budget (Budget): What to keep to.
        num_batches (int): Training batches that are looked at.
        say (Callable): Gets a line for each step.

    Raises:
        ValueError: If the config has no quantized layer, or the budget can't
            be met; the message has the nearest that can.
    """
    cfg.update(load_from=None, custom_hooks=[], resume=False)
    # Backends may write to the work directory or to a server.
    cfg.visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    # A later Runner of the process would get one of the same name.
    cfg.visualizer.update(name='bits', vis_backends=None)
    protect_loading()
    runner = Runner.from_cfg(cfg)
    model: Any = runner.model
    if not quantized_layers(model):
        raise ValueError(
            'expected the config of a student, got one without quantized '
            'layers. `mmgor convert` writes one.'
        )
    state, _ = read_state_dict(checkpoint)
    fitting_weights(model, state, checkpoint)
    load_state_dict(model, state, logger=runner.logger)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batches = list(islice(loader, num_batches))
    say(
        f'measuring  {len(quantized_layers(model))} layers, {len(batches)} '
        'batches, one backward pass each'
    )
    found = without_edges(
        model,
        sensitivities(
            model, batches, lambda b: total_loss(model, b), batch_size(loader)
        ),
    )

    def accuracy(bits: Bits | None) -> float:
        return _accuracy(runner, batches, bits)

    if budget.drop is not None:
        bits = _by_accuracy(found, budget.drop, accuracy, say)
    elif budget.size is not None:
        bits = _by_size(model, found, budget.size)
    else:
        bits = by_mean_bits(found, budget.mean_bits or 0)
    set_bits(model, bits)
    size = layer_table(model)['total']['bytes']
    return Found(bits, found, size)


def without_edges(
    model: nn.Module, found: Sequence[Sensitivity]
) -> list[Sensitivity]:
    """The tensors of all but first and prediction layers, which keep the bits
    of the config.

    The estimate holds for small errors. Of the scores of background, which
    are near 0 and have hardly a gradient, large errors make false boxes.
    """
    layers = quantized_layers(model)
    return [one for one in found if not layers[one.layer].is_edge]


def by_mean_bits(
    found: Sequence[Sensitivity], mean: float, sides: Sequence[str] = ()
) -> Bits:
    """Bits of all weights, and of all inputs, with the same mean.

    From a mean of 4 on, none has 2 bits: the estimate is for small errors, and
    those of 2 bits are not.

    Args:
        found (Sequence[Sensitivity]): The tensors.
        mean (float): Most bits per number, for weights and inputs each.
        sides (Sequence[str]): 'w_bits' and 'a_bits'; default: both.

    Raises:
        ValueError: If the mean is below the fewest bits.
    """
    bits: Bits = {}
    for side in sides or ('w_bits', 'a_bits'):
        own = [one for one in found if one.side == side]
        fewest = 3 if mean >= 4 else min(BITS)
        costs = [
            {b: cost for b, cost in one.costs.items() if b >= fewest}
            for one in own
        ]
        chosen = assign_bits(costs, [one.count for one in own], mean)
        for one, count in zip(own, chosen):
            bits.setdefault(one.layer, {})[side] = count
    return bits


def mean_bits(found: Sequence[Sensitivity], bits: Bits, side: str) -> float:
    """Bits per number, on average over the tensors of one side."""
    own = [one for one in found if one.side == side]
    total = sum(one.count for one in own)
    return sum(one.count * bits[one.layer][side] for one in own) / total


def set_bits(model: nn.Module, bits: Mapping[str, Mapping[str, int]]) -> None:
    """Give layers other bits; their ranges have to be calibrated again."""
    for name, layer in quantized_layers(model).items():
        own = bits.get(name, {})
        quantizers = dict(
            w_bits=layer.weight_quantizer, a_bits=layer.input_quantizer
        )
        for side, count in own.items():
            quantizers[side].bits = count
            quantizers[side].forget_range()


def _by_size(model: nn.Module, found: list[Sensitivity], size: float) -> Bits:
    """The bits of weights that a packed file has room for."""
    own = [one for one in found if one.side == 'w_bits']
    count = sum(one.count for one in own)
    set_bits(model, {one.layer: dict(w_bits=min(BITS)) for one in own})
    least = layer_table(model)['total']['bytes']
    if size < least:
        raise ValueError(
            f'--bytes {size:g} can not be met: {least} bytes are needed with '
            f'{min(BITS)} bits for every weight but those of first and '
            'prediction layers, since what stays in float, biases and step '
            'sizes take room, too.'
        )
    # Layers are rounded up to whole bytes.
    room = 8 * max(0, size - least - len(own))
    return by_mean_bits(found, min(BITS) + room / count, ['w_bits'])


def _by_accuracy(
    found: list[Sensitivity],
    drop: float,
    accuracy: Callable[[Bits | None], float],
    say: Callable[[str], None],
) -> Bits:
    """The fewest bits that calibration alone brings within a drop of mAP."""
    start = accuracy(None)
    say(f'evaluated  float: mAP {start:.1f}')

    def reached(mean: float) -> float:
        result = accuracy(by_mean_bits(found, mean))
        say(f'evaluated  {mean:g} bits on average: mAP {result:.1f}')
        return result

    low, high = min(BITS), max(BITS)
    most = reached(high)
    if not most >= start - drop:
        raise ValueError(
            f'--budget "mAP {drop:g}" can not be met by calibration: '
            f'{high} bits everywhere lose {start - most:.1f}. Train '
            'the student first, or allow that much.'
        )
    below, above = 0, round((high - low) / STEP)
    while above - below > 1:
        middle = (below + above) // 2
        if reached(low + middle * STEP) >= start - drop:
            above = middle
        else:
            below = middle
    return by_mean_bits(found, low + above * STEP)


def _accuracy(runner: Runner, batches: list, bits: Bits | None) -> float:
    """mAP in per cent with these bits by calibration, or in float."""
    model: Any = runner.model
    rounding: Any = nullcontext()
    if bits is None:
        rounding = without_rounding(model)
    else:
        set_bits(model, bits)
        calibrate(model, batches, lambda one: run_losses(model, one))
    with rounding:
        metrics = runner.test()
    names = [name for name in metrics if name.endswith('mAP')]
    if not names:
        raise ValueError(
            f'expected a test_evaluator that gives mAP, got {[*metrics]}.'
        )
    return 100 * float(metrics[names[0]])
