"""Modules' training flags."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def training_flags_kept(model: nn.Module) -> Iterator[None]:
    """Each module's own mode is put back."""
    flags = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; each module's own mode is put back."""
    with training_flags_kept(model):
        model.eval()
        yield
