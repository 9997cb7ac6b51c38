"""Writes a frozen network as a ``.pte`` file."""

import json
import tempfile
from pathlib import Path
from typing import Any

from mmgor.deploy.description.pte import pack_pte
from mmgor.deploy.export.job import Job
from mmgor.deploy.runtime.executorch import ExecuTorchRuntime
from mmgor.deploy.verify.run_check import check_run
from mmgor.io.atomic_write import writing

from .conversion import convert


def write_executorch(job: Job) -> dict[str, Any]:
    """Convert a network, run the result in ExecuTorch and write it.

    Args:
        job (Job): Its path ends in ``.pte``.

    Returns:
        dict: ``bytes`` (size of the file) and ``folded`` (number of folded
        batch norms).

    Raises:
        ValueError: If int8 can't hold a grid, or if ExecuTorch computes
            something else.
    """
    program, folded = convert(job.network, job.images)
    content = pack_pte(program, json.dumps(job.metadata))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'network.pte'
        copy.write_bytes(content)
        check_run(ExecuTorchRuntime(copy, job.metadata, None, True), job)
    with writing(job.path) as part:
        part.write_bytes(content)
    return dict(bytes=len(content), folded=folded)
