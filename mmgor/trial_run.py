"""Forward passes in training mode that leave a model as it was.

Calibration runs such passes: training flags, buffers and random states are
put back afterwards.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .training_mode import training_flags_kept


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the states of Python's, numpy's and torch's global random generators
    back afterwards."""
    states = random.getstate(), np.random.get_state()
    # Asking for the state of a device that is not in use would initialise it.
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
    """Put all buffers back afterwards, such as batch-norm statistics and the
    running means of losses."""
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
            # The forward pass may have assigned another tensor.
            module._buffers[name] = buffer


@contextmanager
def trial_run(model: nn.Module) -> Iterator[None]:
    """Run the block in training mode, as a training step would.

    Each module's own ``training`` flag, all buffers and the global random
    states are put back afterwards.
    """
    with training_flags_kept(model), buffers_kept(model), random_states_kept():
        model.train()
        yield
