"""Writes a frozen network as the two files of ncnn."""

import json
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from mmgor.deploy.description.ncnn import describe
from mmgor.deploy.export.frozen import FrozenInput
from mmgor.deploy.export.job import Job
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.runtime.ncnn import NcnnRuntime
from mmgor.deploy.verify.run_check import check_run
from mmgor.io.atomic_write import writing_together

from .convolutions import LARGEST
from .translation import to_ncnn


def write_ncnn(job: Job) -> dict[str, Any]:
    """Translate a network, run the result in ncnn and write it.

    Args:
        job (Job): Its path ends in ``.param``; the ``.bin`` is written beside
            it.

    Returns:
        dict: ``bytes`` (size of both files) and ``folded`` (number of folded
        batch norms).

    Raises:
        ValueError: If ncnn lacks an operator or a grid, or computes something
            else.
    """
    _limit_ranges(job.network)
    names = flatten(job.metadata['outputs'])
    graph, folded = to_ncnn(job.network, job.images, names)
    layers, weights = graph.files()
    text = describe(layers, weights, json.dumps(job.metadata))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'network.param'
        copy.write_text(text)
        copy.with_suffix('.bin').write_bytes(weights)
        check_run(NcnnRuntime(copy, job.metadata, None, True), job)
    files = job.path, job.path.with_suffix('.bin')
    with writing_together(*files) as (param, part):
        param.write_text(text)
        part.write_bytes(weights)
    return dict(bytes=len(text) + len(weights), folded=folded)


def _limit_ranges(network: nn.Module) -> None:
    """Take -128 from signed ranges of 8 bits: ncnn's integers end at -127."""
    for module in network.modules():
        if isinstance(module, FrozenInput):
            module.ranges = [
                (max(low, -LARGEST), high) for low, high in module.ranges
            ]
