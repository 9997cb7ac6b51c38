"""One learned quantizer alone, beside those of other libraries.

Each rounds the same tensors to 4 bits, forward and backward: an activation
with one trained step size (8 x 64 x 64 x 80), and a convolution's weight with
one per output channel (128 x 128 x 3 x 3). `copy` copies the tensor, and then
the gradient. The quantizers take turns; the ratio to the copy is taken in each
round, and medians are printed. What is missing is named.

pip install brevitas torchao
OMP_NUM_THREADS=1 python benchmarks/one_quantizer.py [--rounds 30]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

import mmgor  # noqa: F401
from mmgor.registry import MODELS

SHAPES = {'activation': (8, 64, 64, 80), 'weight': (128, 128, 3, 3)}
BITS = 4
QMIN, QMAX = -8, 7
WARM_UP = 5
#: Takes a tensor and returns the rounded one.
Rounding = Callable[[Tensor], Tensor]


class NotApplicable(Exception):
    """A quantizer does not take such a tensor."""


def copy(x: Tensor) -> Rounding:
    return lambda x: x.clone()


def mmgor_quantizer(kind: str, x: Tensor) -> Rounding:
    """One of ours, as in a training."""
    weight = x.shape == SHAPES['weight']
    quantizer: Any = MODELS.build(
        dict(
            type=kind,
            bits=BITS,
            num_scales=len(x) if weight else 1,
            per_channel=weight,
            for_weight=weight,
        )
    )
    quantizer.choose_range(signed=True)
    scale = torch.full((quantizer.num_scales,), 0.3)
    low, high = scale * QMIN, scale * QMAX
    # The zero of LSQ+, which has no negative integers, is at QMIN.
    offset = low if quantizer.asymmetric else torch.zeros_like(scale)
    quantizer.set_ranges(scale, offset, low, high)
    return quantizer.train()


mmgor_lsq = partial(mmgor_quantizer, 'LSQQuantizer')
mmgor_minmax = partial(mmgor_quantizer, 'MinMaxQuantizer')


def mmgor_lsq_plus(x: Tensor) -> Rounding:
    if x.shape == SHAPES['weight']:
        raise NotApplicable('it is for inputs only')
    return mmgor_quantizer('LSQPlusQuantizer', x)


def mmgor_plain(x: Tensor) -> Rounding:
    """The same formula with torch's operations, one by one."""
    from mmgor.quantization.quantizers.functional import fake_quantize

    weight = x.shape == SHAPES['weight']
    shape = (len(x), 1, 1, 1) if weight else ()
    scale = torch.full(shape, 0.3, requires_grad=True)
    low, high = torch.tensor(QMIN), torch.tensor(QMAX)
    return lambda x: fake_quantize(x, scale, None, low, high)


def torch_learnable(x: Tensor) -> Rounding:
    """The operations behind torch.ao's learnable fake-quantize."""
    if x.shape == SHAPES['weight']:
        scale = torch.full((len(x),), 0.3, requires_grad=True)
        zeros = torch.zeros(len(x))
        return lambda x: torch._fake_quantize_learnable_per_channel_affine(
            x, scale, zeros, 0, QMIN, QMAX, 0.1
        )
    scale, zero = torch.tensor([0.3], requires_grad=True), torch.zeros(1)
    return lambda x: torch._fake_quantize_learnable_per_tensor_affine(
        x, scale, zero, QMIN, QMAX, 0.1
    )


def brevitas(x: Tensor) -> Rounding:
    """Trained scales: PARAMETER_FROM_STATS."""
    from brevitas.nn import QuantConv2d, QuantIdentity
    from brevitas.quant.scaled_int import (
        Int8ActPerTensorFloat,
        Int8WeightPerChannelFloat,
    )

    if x.shape != SHAPES['weight']:
        act: Any = QuantIdentity(
            act_quant=Int8ActPerTensorFloat,
            bit_width=BITS,
            collect_stats_steps=1,
        ).train()
        return act

    class Trained(Int8WeightPerChannelFloat):
        scaling_impl_type = 'parameter_from_stats'

    layer: Any = QuantConv2d(
        *x.shape[1::-1], 3, weight_quant=Trained, weight_bit_width=BITS
    ).train()
    return lambda x: layer.weight_quant(x).value


def torchao(x: Tensor) -> Rounding:
    """IntxFakeQuantizer with range_learning, which takes matrices."""
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.qat import (
        IntxFakeQuantizeConfig,
        IntxFakeQuantizer,
        initialize_fake_quantizers,
    )

    rows = len(x) if x.shape == SHAPES['weight'] else 1
    quantizer = IntxFakeQuantizer(
        IntxFakeQuantizeConfig(
            torch.int4,
            PerAxis(0),
            is_symmetric=True,
            is_dynamic=False,
            range_learning=True,
        )
    )
    model = nn.Sequential(quantizer)
    initialize_fake_quantizers(model, (x.detach().view(rows, -1),))
    return lambda x: quantizer(x.view(rows, -1)).view_as(x)


MAKERS = {
    'copy': copy,
    'mmgor, LSQQuantizer': mmgor_lsq,
    'mmgor, LSQPlusQuantizer': mmgor_lsq_plus,
    'mmgor, MinMaxQuantizer': mmgor_minmax,
    'mmgor, plain operations': mmgor_plain,
    'torch, learnable fake-quantize': torch_learnable,
    'Brevitas, trained scale': brevitas,
    'torchao, range learning': torchao,
}


def measure(kind: str, rounds: int) -> tuple[dict[str, list[float]], list]:
    """Seconds of each quantizer, one value per round, and what is missing."""
    torch.manual_seed(0)
    x = torch.randn(SHAPES[kind], requires_grad=True)
    grad = torch.randn(SHAPES[kind])
    roundings, missing = {}, []
    for name, make in MAKERS.items():
        try:
            roundings[name] = make(x)
        except (ImportError, NotApplicable) as error:
            missing.append(f'{name}: {error}')

    def seconds(rounding: Rounding) -> float:
        x.grad = None
        start = time.perf_counter()
        rounding(x).backward(grad)
        return time.perf_counter() - start

    for _ in range(WARM_UP):
        for rounding in roundings.values():
            seconds(rounding)
    times: dict[str, list[float]] = {name: [] for name in roundings}
    for _ in range(rounds):
        for name, rounding in roundings.items():
            times[name].append(seconds(rounding))
    return times, missing


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rounds', type=int, default=30)
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f'--rounds: expected at least 2, got {args.rounds}')
    for kind, shape in SHAPES.items():
        times, missing = measure(kind, args.rounds)
        size = ' x '.join(map(str, shape))
        print(f'\n| {kind}, {size} | ms | of the copy (quartiles) |')
        print('|---|---|---|')
        for name, values in times.items():
            ratios = [a / b for a, b in zip(values, times['copy'])]
            low, middle, high = quantiles(ratios, n=4)
            print(
                f'| {name} | {1000 * median(values):.2f} | '
                f'{middle:.2f} ({low:.2f} to {high:.2f}) |'
            )
        for line in missing:
            print(f'not measured: {line}')


if __name__ == '__main__':
    main()
