"""Runs ONNX models in tests."""

from pathlib import Path

import numpy as np
import torch


def run_onnx(model, images):
    """Run a model node by node, without optimization.

    Args:
        model (Path | onnx.ModelProto): With one input.
        images (Tensor | ndarray): The input.

    Returns:
        list[Tensor]: The outputs.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    is_path = isinstance(model, Path)
    source = str(model) if is_path else model.SerializeToString()
    session = ort.InferenceSession(source, options)
    (end,) = session.get_inputs()
    outputs = session.run(None, {end.name: np.asarray(images)})
    return [torch.from_numpy(output) for output in outputs]
