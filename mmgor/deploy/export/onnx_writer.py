"""Writes a frozen network as ONNX, or by way of ONNX as OpenVINO IR."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmgor.deploy.description.metadata_check import MAX_SIDE
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.optional_imports import require
from mmgor.targets import TARGETS, Target

from .deform_conv import traceable_deform_convs
from .graph.batch_norm_folding import fold_norms
from .graph.focus import merge_focus
from .graph.int4_weights import use_int4_weights
from .graph.linear_biases import keep_biases_apart
from .graph.node_names import name_nodes
from .graph.opening import warn_unless_it_opens
from .graph.poolings import chain_poolings
from .graph.rules import check_rules
from .graph.silu import unround_silu
from .graph.stored_types import store_for_target
from .job import Job
from .onnx_ops import OPSET, translations
from .saving import save_exported
from .shape_check import check_shapes

# The ONNX IR version that came with opset 19, for runtimes of that time.
_IR_VERSION = {19: 9}


def write_onnx(job: Job) -> dict[str, Any]:
    """Trace a network, fold its batch norms and write it.

    Args:
        job (Job): Its path ends in ``.onnx`` or ``.xml``.

    Returns:
        dict: ``bytes`` (size of the file) and ``folded`` (number of folded
        batch norms).

    Raises:
        RuntimeError: If torch can't export the network.
        ValueError: If a dynamic graph is wrong at another size, or the graph
            breaks a rule of the target.
    """
    model = _trace(job).model
    folded = fold_norms(model.graph)
    if job.dynamic:
        height, width = job.images.shape[2:]
        check_shapes(
            model, job.network, job.metadata, (height, width), job.path
        )
    target = _of_format(job)
    if target is not None:
        chain_poolings(model.graph)
        if job.path.suffix == '.xml':
            merge_focus(model.graph)
            unround_silu(model.graph)
        store_for_target(model.graph, target)
        name_nodes(model.graph)
        model.ir_version = _IR_VERSION.get(_opset(job), model.ir_version)
    if _is_for_onnx_runtime(job):
        if target is None:
            store_for_target(model.graph, TARGETS['x86'])
        keep_biases_apart(model.graph)
    _finish(model, job.int4)
    check = partial(_check, job=job, target=target)
    written = save_exported(model, job.metadata, job.path, check)
    return dict(bytes=written, folded=folded)


def _of_format(job: Job) -> Target | None:
    """The target as the format stores it; see the rules of 'x86'."""
    if job.target is None or job.path.suffix == '.onnx':
        return job.target
    return replace(
        job.target, stored='grid', clip='float', weight_zero_points=False
    )


def _is_for_onnx_runtime(job: Job) -> bool:
    """Whether ONNX Runtime has to open the file with its default options.

    Version 1.31.1 does not open every graph with int8 activations on x86: in
    front of a linear layer, it gives a QuantizeLinear of its own two types.
    """
    name = job.metadata['target']
    return job.path.suffix == '.onnx' and name in (None, 'x86')


def _check(written: Path, job: Job, target: Target | None) -> None:
    """Check an ONNX file before it gets its name."""
    if target is not None:
        check_rules(written, job.metadata['target'], target)
    if _is_for_onnx_runtime(job):
        warn_unless_it_opens(written, job.path)


def _opset(job: Job) -> int:
    return OPSET if job.target is None else job.target.opset or OPSET


@traceable_deform_convs()
def _trace(job: Job) -> Any:
    """Trace a network to an ONNX program."""
    require('onnx')
    require('onnxscript')
    shapes: Any = None
    if job.dynamic:
        divisor = job.metadata['input']['divisor']
        most = MAX_SIDE // divisor
        height = divisor * torch.export.Dim('height_units', min=1, max=most)
        width = divisor * torch.export.Dim('width_units', min=1, max=most)
        shapes = {
            'images': {0: torch.export.Dim('batch'), 2: height, 3: width}
        }
    try:
        return torch.onnx.export(
            job.network,
            (job.images,),
            input_names=['images'],
            output_names=flatten(job.metadata['outputs']),
            opset_version=_opset(job),
            dynamo=True,
            dynamic_shapes=shapes,
            custom_translation_table=translations(_opset(job)),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RuntimeError(
            'torch could not export the network. Its report names the '
            f'operator and the line of the model: {error}'
        ) from error


def _finish(model: Any, int4: bool) -> None:
    """Use int4 where asked for, and drop unused and equal nodes."""
    passes = require('onnx_ir.passes.common')
    if int4:
        use_int4_weights(model.graph)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.CheckerPass(),
    ):
        step(model)
