"""Finds the activations that a runtime computes inside the layer before."""

from collections import Counter

from .operations import Kind
from .tape import Step, Tape

_ALONE = (Kind.SILU, Kind.ACTIVATION)


def fused_steps(tape: Tape) -> list[Step]:
    """The activations that nothing separates from the layer before.

    The runtime computes the layer and the activation in float registers and
    rounds the result alone. So what the activation reads has no grid. SiLU may
    be one function, or a sigmoid and a product.

    Args:
        tape (Tape): A pass of the module.

    Returns:
        list[Step]: Steps of the tape.
    """
    reads = Counter(n for step in tape.steps for n in step.reads)
    reads.update(first for first, _ in tape.same)
    reads.update(tape.returned)
    operations = [step for step in tape.steps if step.kind]
    others = {n for step in operations for n in step.makes} | {*tape.given}
    products = {
        frozenset(step.reads): step
        for step in operations
        if step.kind is Kind.PRODUCT
    }
    fused = []
    for step in operations:
        x = step.reads[0]
        if x in others:  # no layer made it
            continue
        if step.kind in _ALONE and reads[x] == 1:
            fused.append(step)
        if step.kind is Kind.SIGMOID and reads[x] == 2:
            product = products.get(frozenset((x, *step.makes)))
            if product is not None and reads[step.makes[0]] == 1:
                fused += [step, product]
    return fused
