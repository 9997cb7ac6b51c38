"""Context managers that put the training flags of modules back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training_flags_kept(model: nn.Module) -> Iterator[None]:
    """Put each module's own ``training`` flag back afterwards."""
    flags = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode, then put each module's own
    ``training`` flag back."""
    with training_flags_kept(model):
        model.eval()
        yield
