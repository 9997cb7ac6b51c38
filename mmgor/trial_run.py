"""Runs of a model in training mode that leave nothing behind."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .training_mode import training_flags_kept


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Python's, numpy's and torch's global generators go on afterwards as if
    nothing had been drawn."""
    states = random.getstate(), np.random.get_state()
    # Of other devices not even the state may be asked: it would set them up.
    started = torch.cuda.is_initialized()
    devices = [torch.cuda.current_device()] if started else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers are put back: batch-norm averages, running means of losses."""
    saved = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in saved:
            buffer.copy_(value)
            # A forward may have put another tensor in its place.
            module._buffers[name] = buffer


@contextmanager
def trial_run(model: nn.Module) -> Iterator[None]:
    """In training mode, for forwards that see what training sees.

    Each module's own mode, all buffers and the global random states are put
    back afterwards.
    """
    with training_flags_kept(model), buffers_kept(model), random_states_kept():
        model.train()
        yield
