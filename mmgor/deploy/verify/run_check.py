"""Checks that a runtime computes what was trained, before a file is kept."""

import warnings

import torch
from torch import Tensor

from mmgor.deploy.export.job import Job
from mmgor.deploy.export.shape_check import spread
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.runtime.base import Runtime
from mmgor.listing import listed

#: Mean difference of an output that is always tolerated, in units of its
#: standard deviation.
TOLERANCE = 0.02
#: Tolerated difference, in units of the one that a change of the images by
#: ``CHANGE`` makes. Such a change moves values that lie halfway between two
#: steps, as other additions of floats do.
FACTOR = 4.0
#: A relative change, about what float32 resolves.
CHANGE = 1e-6
# Outputs that have nothing in common differ by about 1.
_TELLING = 0.5


@torch.no_grad()
def check_run(runtime: Runtime, job: Job) -> None:
    """Compare a file with the network that it was written from.

    Args:
        runtime (Runtime): The file, loaded.
        job (Job): The network, and the path that the message names.

    Raises:
        ValueError: If an output differs by more than is tolerated.

    Warns:
        UserWarning: If so much is tolerated that the comparison says little.
    """
    sensitive = []
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(job.images.shape, generator=generator)
    wanted = job.network(images)
    changed = job.network(images * (1 + CHANGE))
    names = flatten(job.metadata['outputs'])
    target = job.metadata['target']
    got = flatten(runtime(images))
    for name, ours, near, theirs in zip(names, wanted, changed, got):
        tolerated = max(TOLERANCE, FACTOR * mean_difference(ours, near))
        if tolerated > _TELLING:
            sensitive.append(name)
        apart = mean_difference(ours, theirs)
        # Not "greater": that would let a NaN pass.
        if not apart <= tolerated:
            raise ValueError(
                f'{job.path} was not written: its runtime computes something '
                f'else than PyTorch. {name} is off by {apart:.2g} of its '
                f'standard deviation on average, tolerated {tolerated:.2g}. '
                'Expected a model trained with '
                f'quant=dict(target={target!r}); if this one was, choose '
                'another target.'
            )
    if sensitive:
        warnings.warn(
            f'running {job.path} says little about {listed(sensitive)}: a '
            f'relative change of {CHANGE} of the images changes them as much '
            'as a wrong file would. Compare on real images: python '
            f'tools/verify_export.py CONFIG CHECKPOINT {job.path} --map.',
            stacklevel=2,
        )


def mean_difference(wanted: Tensor, got: Tensor) -> float:
    """Mean difference in units of the standard deviation of ``wanted``.

    Args:
        wanted (Tensor): Any shape.
        got (Tensor): The same shape.
    """
    return float((wanted.double() - got).abs().mean() / spread(wanted))
