"""Writes a frozen network as a ``.tflite`` file."""

import json
from typing import Any

from mmgor.deploy.description.tflite import pack_tflite
from mmgor.deploy.export.job import Job
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.optional_imports import require
from mmgor.io.atomic_write import writing

from .conversion import convert
from .int4_weights import use_int4_weights
from .rules import check_rules
from .shared_constants import share_constants


def write_litert(job: Job) -> dict[str, Any]:
    """Convert a network, and check and write the file.

    Its input and outputs are int8; the scales are in the file.

    Args:
        job (Job): Its path ends in ``.tflite``.

    Returns:
        dict: ``bytes`` (size of the file) and ``folded`` (number of folded
        batch norms).

    Raises:
        RuntimeError: If litert-torch can't convert the network.
        ValueError: If the file breaks a rule of its target.
    """
    model, folded = convert(
        job.network, job.images, flatten(job.metadata['outputs'])
    )
    if job.int4:
        use_int4_weights(model)
    share_constants(model)
    content = pack_tflite(model, json.dumps(job.metadata))
    utils = require('ai_edge_litert.tools.flatbuffer_utils')
    read_back = utils.read_model_from_bytearray(content)
    check_rules(read_back, job.metadata['target'], job.path)
    with writing(job.path) as part:
        part.write_bytes(content)
    return dict(bytes=len(content), folded=folded)
