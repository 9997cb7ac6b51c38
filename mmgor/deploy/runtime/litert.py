"""Runs a ``.tflite`` file in LiteRT, on the CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require

from .base import Runtime


class LiteRTRuntime(Runtime):
    """A ``.tflite`` file in LiteRT.

    Its input and outputs are integers. Images are rounded to them by the
    scale in the file, and the outputs are turned into floats.
    """

    integer_only = True

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        litert = require('ai_edge_litert.interpreter')
        try:
            interpreter = litert.Interpreter(
                str(self.path), num_threads=threads
            )
            self._runner = interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            version = require('ai_edge_litert').__version__
            raise self._refuse(f'LiteRT {version}', error) from error
        self._inputs = self._runner.get_input_details()
        self._outputs = self._runner.get_output_details()

    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        shapes = {
            name: end['shape'].tolist() for name, end in self._inputs.items()
        }
        return shapes, set(self._outputs)

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        name = self.metadata['input']['name']
        results = self._runner(**{name: quantize(images, self._inputs[name])})
        return {
            key: dequantize(value, self._outputs[key])
            for key, value in results.items()
        }


def quantize(values: NDArray, end: dict[str, Any]) -> NDArray:
    """Round values to the integers of a graph's input.

    Args:
        values (NDArray): float32, any shape.
        end (dict): LiteRT's details of the input: ``dtype`` and
            ``quantization``, its scale and zero point.

    Returns:
        NDArray: Of the input's type; as it is for an input in float.
    """
    if end['dtype'] == np.float32:
        return values
    scale, zero_point = end['quantization']
    bounds = np.iinfo(end['dtype'])
    levels = np.rint(values / np.float32(scale)) + zero_point
    return levels.clip(bounds.min, bounds.max).astype(end['dtype'])


def dequantize(integers: NDArray, end: dict[str, Any]) -> NDArray:
    """The float32 values of a graph's output; see :func:`quantize`."""
    if end['dtype'] == np.float32:
        return integers
    scale, zero_point = end['quantization']
    return (integers.astype(np.float32) - zero_point) * np.float32(scale)
