"""Runs ``.pte`` files in ExecuTorch, on the CPU."""

from typing import Any

import torch
from numpy.typing import NDArray

from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.optional_imports import require

from .base import Runtime

_METHOD = 'forward'


class ExecuTorchRuntime(Runtime):
    """A ``.pte`` file in ExecuTorch.

    Its input and outputs are floats. Layers in XNNPACK always compute in
    integers. All files of a process share their threads: the last file that
    was opened with ``threads`` sets their number.
    """

    integer_only = True

    def _open(self, threads: int | None, integer_kernels: bool) -> None:
        version = require('executorch.version').__version__
        require('executorch.kernels.quantized')  # registers its operators
        if threads is not None:
            library = require('executorch.extension.pybindings.portable_lib')
            library._unsafe_reset_threadpool(threads)
        runtime = require('executorch.runtime').Runtime.get()
        # A method reads the memory of its program and of the file's bytes.
        self._content = self.path.read_bytes()
        try:
            self._program = runtime.load_program(self._content)
            self._method = self._program.load_method(_METHOD)
        except (RuntimeError, ValueError) as error:
            raise self._refuse(f'ExecuTorch {version}', error) from error

    def _signature(self) -> tuple[dict[str, list[Any]], set[str]]:
        # A program numbers its input and outputs.
        meta = self._method.metadata
        shape = list(meta.input_tensor_meta(0).sizes())
        names = flatten(self.metadata['outputs'])
        fits = meta.num_inputs() == 1 and meta.num_outputs() == len(names)
        return (
            {self.metadata['input']['name']: shape},
            set(names if fits else ()),
        )

    def _run(self, images: NDArray) -> dict[str, NDArray]:
        results = self._method.execute([torch.from_numpy(images)])
        names = flatten(self.metadata['outputs'])
        # A later call writes to the same memory.
        arrays = [result.numpy().copy() for result in results]
        return dict(zip(names, arrays, strict=True))
