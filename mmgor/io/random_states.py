"""States of the random generators, as numbers that a checkpoint can hold."""

import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global random generators.

    Returns:
        dict: Numbers, tuples, lists and tensors, which
        ``torch.load(weights_only=True)`` reads.
    """
    kind, keys, *rest = np.random.get_state()
    states = dict(
        python=random.getstate(),
        numpy=(kind, np.asarray(keys).tolist(), *rest),
        torch=torch.get_rng_state(),
    )
    # Asking for the state of a device that is not in use would initialise it.
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put the generators into states of :func:`random_states`.

    Args:
        states (dict): Its tensors may be on any device.
    """
    version, words, gauss = states['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = states['numpy']
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())
