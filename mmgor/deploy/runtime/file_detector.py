"""``FileDetector``: an exported file as a detector of mmdet."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from torch import Tensor

from mmgor.deploy.head_outputs import map_nested

from .runtime import open_runtime


class FileDetector(BaseDetector):
    """Runs an exported file. A subclass implements :meth:`decode`.

    Args:
        file (str): File that ``tools/export.py`` wrote.
        data_preprocessor (dict, optional): As in training.
        threads (int, optional): See :func:`open_runtime`.
        integer_kernels (bool, optional): See :func:`open_runtime`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be used.
    """

    def __init__(
        self,
        file: str,
        data_preprocessor: dict | None = None,
        threads: int | None = None,
        integer_kernels: bool | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.runtime = open_runtime(file, threads, integer_kernels)

    def fit(self, images: Tensor) -> Tensor:
        """Pad images at the right and the bottom to a size the file takes.

        The padding has the ``pad_value`` of the ``data_preprocessor``, which
        also pads after it has normalized.

        Args:
            images (Tensor): Shape (N, C, H, W), preprocessed.

        Returns:
            Tensor: Shape (N, C, H', W').

        Raises:
            ValueError: If the images are larger than the file takes.
        """
        spec = self.runtime.metadata['input']
        missing = []
        for key, side in zip(('height', 'width'), images.shape[2:]):
            wanted = spec[key] or -(-side // spec['divisor']) * spec['divisor']
            if side > wanted:
                raise ValueError(
                    f'{self.runtime.path} takes images of {spec["height"]} x '
                    f'{spec["width"]} (height x width), got a batch of '
                    f'{images.shape[2]} x {images.shape[3]} from the test '
                    'pipeline. Lower the scale of its Resize, or export for '
                    'a size that holds all images, upright ones too.'
                )
            missing.append(wanted - side)
        value = getattr(self.data_preprocessor, 'pad_value', 0)
        return F.pad(images, (0, missing[1], 0, missing[0]), value=value)

    def outputs(self, images: Tensor) -> Any:
        """The raw outputs of the file.

        Args:
            images (Tensor): Shape (N, C, H, W), preprocessed, of a size that
                the file takes. N may be any number: a file of batch size B
                runs B images at a time.

        Returns:
            list: Tensors with N entries on the device of ``images``, nested
            as :meth:`.Parts.outputs` gives them.

        Raises:
            RuntimeError: If the file gives detections instead.
        """
        if self.runtime.metadata['nms']:
            raise RuntimeError(
                f'{self.runtime.path} gives detections, not the outputs of '
                'the head; export without nms for those.'
            )
        batch = self.runtime.metadata['input']['batch'] or len(images)
        runs = []
        for some in images.split(batch):
            full = F.pad(some, (0,) * 7 + (batch - len(some),))
            runs.append(self.runtime(full))
        return map_nested(
            lambda *tensors: torch.cat(tensors)[: len(images)].to(
                images.device
            ),
            *runs,
        )

    def decode(
        self,
        outputs: Any,
        samples: list,
        size: Sequence[int],
        rescale: bool = True,
    ) -> list[Any]:
        """Make detections of the raw outputs.

        Args:
            outputs (list): From :meth:`outputs`.
            samples (list[DetDataSample]): N samples.
            size (Sequence[int]): Height and width of the images that gave
                the outputs. They may be larger than the batch of the samples
                was.
            rescale (bool): Give boxes in pixels of the original images
                instead of the resized ones.

        Returns:
            list[InstanceData]: Boxes, scores and labels of each image.
        """
        raise NotImplementedError

    def detect(
        self, images: Tensor, samples: list, rescale: bool = True
    ) -> list[Any]:
        """Detect objects: run the file and decode.

        Args:
            images (Tensor): Shape (N, C, H, W), preprocessed, of a size that
                the file takes.
            samples (list[DetDataSample]): N samples.
            rescale (bool): See :meth:`decode`.

        Returns:
            list[InstanceData]: See :meth:`decode`.
        """
        outputs, size = self.outputs(images), images.shape[2:]
        return self.decode(outputs, samples, size, rescale)

    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list,
        rescale: bool = True,
    ) -> list:
        """Detect objects in a batch, as any detector of mmdet does.

        Args:
            batch_inputs (Tensor): Shape (N, C, H, W), preprocessed.
            batch_data_samples (list[DetDataSample]): N samples.
            rescale (bool): See :meth:`decode`.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``.
        """
        images = self.fit(batch_inputs)
        found = self.detect(images, batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: list | None = None
    ) -> Any:
        return self.outputs(self.fit(batch_inputs))

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        """Not possible for all files: most do not give their features.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            f'{self.runtime.path} gives only what detections are made of; for '
            'features use the config and the checkpoint that it came from.'
        )

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> Any:
        """Not possible: an exported file can't be trained.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            f'{self.runtime.path} can not be trained; train with the config '
            'and the checkpoint that it came from, and export again.'
        )
