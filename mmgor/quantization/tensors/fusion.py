"""Finds the SiLU activations that a runtime computes inside a layer."""

from collections import Counter

from .operations import Kind
from .tape import Step, Tape


def fused_steps(tape: Tape) -> list[Step]:
    """The SiLU activations that nothing separates from the layer before.

    The runtime computes layer and SiLU in float registers and rounds the
    result alone. So what SiLU reads has no grid. It may be one function, or a
    sigmoid and a product.

    Args:
        tape (Tape): A pass of the module.

    Returns:
        list[Step]: Steps of the tape.
    """
    reads = Counter(n for step in tape.steps for n in step.reads)
    reads.update(first for first, _ in tape.same)
    reads.update(tape.returned)
    operations = [s for s in tape.steps if s.kind and not s.decodes]
    layers = {n for s in tape.steps if s.kind is None for n in s.makes}
    for first, other in sorted([*tape.same, *tape.passed], key=max):
        if first in layers:
            layers.add(other)
    products = {
        frozenset(step.reads): step
        for step in operations
        if step.kind is Kind.PRODUCT
    }
    fused = []
    for step in operations:
        x = step.reads[0]
        if x not in layers:
            continue
        if step.kind is Kind.SILU and reads[x] == 1:
            fused.append(step)
        if step.kind is Kind.SIGMOID and reads[x] == 2:
            product = products.get(frozenset((x, *step.makes)))
            if product is not None and reads[step.makes[0]] == 1:
                fused += [step, product]
    return fused
