"""Changes what is rounded by a little, to see how far the outputs move.

Fake quantization rounds sums of floats. A change of their last digits moves
values that lie halfway between two steps to the other step, and later layers
pass that on. So two correct programs differ as much as one does under a tiny
change.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from mmgor.quantization import (
    BaseQuantizer,
    GivenQuantizer,
    quantized_layers,
    tensor_quantizers,
)
from mmgor.quantization.quantizers.marks import mark_of

#: A mean difference, in standard deviations of an output, above which a
#: tolerance tells nothing, however far PyTorch itself moves. Outputs that have
#: nothing in common differ by about 1.
MOST_TOLERATED = 0.5


@contextmanager
def changed_roundings(
    quantizers: Iterable[nn.Module], change: float
) -> Iterator[None]:
    """In the block, all that is rounded is larger by a small share.

    Args:
        quantizers (Iterable[nn.Module]): Modules that round their first
            argument.
        change (float): Relative change of what they round. A tensor that is
            on a grid already is not changed.
    """

    def enlarge(_: nn.Module, args: tuple) -> tuple:
        x, *rest = args
        return args if mark_of(x) is not None else (x * (1 + change), *rest)

    handles = [
        module.register_forward_pre_hook(enlarge)
        for module in dict.fromkeys(quantizers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_quantizers(model: nn.Module) -> list[BaseQuantizer]:
    """The quantizers that round activations.

    Args:
        model (nn.Module): A quantized detector.
    """
    layers = quantized_layers(model).values()
    found = [layer.input_quantizer for layer in layers]
    found += tensor_quantizers(model).values()
    return [q for q in found if not isinstance(q, GivenQuantizer)]
