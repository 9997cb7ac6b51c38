"""Runs ``.param`` files in ncnn, on the CPU."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgor.deploy.optional_imports import require

from .base import Runtime

# They lower the precision of what is not quantized.
_OFF = (
    'use_vulkan_compute',
    'use_fp16_packed',
    'use_fp16_storage',
    'use_fp16_arithmetic',
    'use_bf16_storage',
)
_INPUT_LINE = 2


class NcnnRuntime(Runtime):
    """A ``.param`` file with its ``.bin`` in ncnn.

    Layers with int8 weights always compute in integers.
    """

    integer_only = True

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        ncnn = require('ncnn')
        self._net = ncnn.Net()
        for option in _OFF:
            setattr(self._net.opt, option, False)
        if threads is not None:
            self._net.opt.num_threads = threads
        weights = self.path.with_suffix('.bin')
        for load, path in (
            (self._net.load_param, self.path),
            (self._net.load_model, weights),
        ):
            if load(str(path)):
                raise self._refuse(
                    f'ncnn {ncnn.__version__}',
                    ValueError(f'it could not load {path.name}'),
                )

    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        # The line of the input ends in 0=width 1=height 2=channels.
        words = self.path.read_text().splitlines()[_INPUT_LINE].split()
        sides = [word.partition('=')[2] for word in words[5:]]
        names = self._net.input_names()
        if len(sides) != 3 or not all(map(str.isdecimal, sides)):
            return {name: [] for name in names}, set()
        width, height, channels = map(int, sides)
        return (
            {name: [1, channels, height, width] for name in names},
            set(self._net.output_names()),
        )

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        mat = require('ncnn').Mat
        extractor = self._net.create_extractor()
        # ncnn frees its tensors: it may not get the memory of an array.
        extractor.input(self.metadata['input']['name'], mat(images[0]).clone())
        arrays = {}
        for name in self._net.output_names():
            status, output = extractor.extract(name)
            if status:
                raise ValueError(
                    f'{self.path} could not be run by ncnn (error {status} '
                    f'at {name}). Export it again.'
                )
            arrays[name] = np.array(output)[None]
        return arrays
