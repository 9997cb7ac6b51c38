"""Checks that a runtime computes what was trained, before a file is kept."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mmgor.deploy.export.frozen import FrozenInput
from mmgor.deploy.export.job import Job
from mmgor.deploy.export.shape_check import spread
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.runtime.base import Runtime
from mmgor.listing import listed

from .changed_roundings import MOST_TOLERATED, changed_roundings

#: Mean difference of an output that is always tolerated, in units of its
#: standard deviation.
TOLERANCE = 0.02
#: Tolerated difference, in units of the one that a change by ``CHANGE`` makes.
FACTOR = 4.0
#: A relative change of every tensor that is about to be rounded. It moves
#: values that lie halfway between two steps, as the arithmetic of integers
#: does: its biases are rounded as well.
CHANGE = 1e-4
# The images have a random colour every so many pixels, and no edges between:
# for a network, pixels without relation are far from any image.
_PATCH = 8
_WHITE = 255


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
    images = random_images(job)
    wanted = job.network(images)
    rounding = [m for m in job.network.modules() if isinstance(m, FrozenInput)]
    with changed_roundings(rounding, CHANGE):
        changed = job.network(images)
    names = flatten(job.metadata['outputs'])
    target = job.metadata['target']
    got = flatten(runtime(images))
    for name, ours, near, theirs in zip(names, wanted, changed, got):
        tolerated = max(TOLERANCE, FACTOR * mean_difference(ours, near))
        if tolerated > MOST_TOLERATED:
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
            f'relative change of {CHANGE} of the tensors that are rounded '
            'changes them as much as a wrong file would. Compare on real '
            'images: python tools/verify_export.py CONFIG CHECKPOINT '
            f'{job.path} --map.',
            stacklevel=2,
        )


def random_images(job: Job) -> Tensor:
    """Smooth images of random colours, normalised as the detector does it.

    Args:
        job (Job): Its ``images`` tell the shape.

    Returns:
        Tensor: Shape (N, C, H, W).
    """
    *ends, height, width = job.images.shape
    generator = torch.Generator().manual_seed(0)
    sides = (-(-height // _PATCH), -(-width // _PATCH))
    colours = _WHITE * torch.rand(*ends, *sides, generator=generator)
    pixels = interpolate(colours, size=(height, width), mode='bilinear')
    detector = job.network.detector
    preprocessor: Any = getattr(detector, 'data_preprocessor', None)
    if not getattr(preprocessor, '_enable_normalize', False):
        return pixels
    return (pixels - preprocessor.mean) / preprocessor.std


def mean_difference(wanted: Tensor, got: Tensor) -> float:
    """Mean difference in units of the standard deviation of ``wanted``.

    Args:
        wanted (Tensor): Any shape.
        got (Tensor): The same shape.
    """
    return float((wanted.double() - got).abs().mean() / spread(wanted))
