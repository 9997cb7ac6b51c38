"""``RuntimeDetector``: an exported file as a detector of mmdet.

The file computes the outputs of the head; mmdet decodes them and runs NMS.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmgor.deploy.head_outputs import map_nested
from mmgor.registry import MODELS

from .runtime import open_runtime


@MODELS.register_module()
class RuntimeDetector(BaseDetector):
    """Runs an exported file and decodes its outputs.

    A file with NMS in its graph gives detections by itself.

    Args:
        file (str): File that ``tools/export.py`` wrote.
        bbox_head (dict): mmdet's head. Its ``predict_by_feat`` decodes the
            outputs; its layers never run.
        data_preprocessor (dict, optional): As in training.
        test_cfg (dict, optional): ``test_cfg`` of the head.
        threads (int, optional): See :func:`open_runtime`.
        integer_kernels (bool, optional): See :func:`open_runtime`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file can't be used.
    """

    def __init__(
        self,
        file: str,
        bbox_head: dict,
        data_preprocessor: dict | None = None,
        test_cfg: dict | None = None,
        threads: int | None = None,
        integer_kernels: bool | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.runtime = open_runtime(file, threads, integer_kernels)
        self.bbox_head = MODELS.build(
            ConfigDict({**bbox_head, 'test_cfg': test_cfg})
        )

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
        """The head's raw outputs.

        Args:
            images (Tensor): Shape (N, C, H, W), preprocessed, of a size that
                the file takes. N may be any number: a file of batch size B
                runs B images at a time.

        Returns:
            list: Tensors with N entries on the device of ``images``, nested
            as the head gives them.

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
        """Decode raw outputs with the head's own code.

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
        head: Any = self.bbox_head
        shape = dict(batch_input_shape=tuple(size))
        metas = [{**sample.metainfo, **shape} for sample in samples]
        return head.predict_by_feat(
            *outputs, batch_img_metas=metas, rescale=rescale
        )

    def detect(
        self, images: Tensor, samples: list, rescale: bool = True
    ) -> list[Any]:
        """Detect objects: run the file and, if it has no NMS, decode.

        Args:
            images (Tensor): Shape (N, C, H, W), preprocessed, of a size that
                the file takes.
            samples (list[DetDataSample]): N samples.
            rescale (bool): See :meth:`decode`.

        Returns:
            list[InstanceData]: See :meth:`decode`.
        """
        if not self.runtime.metadata['nms']:
            outputs, size = self.outputs(images), images.shape[2:]
            return self.decode(outputs, samples, size, rescale)
        return [
            self._instances(self.runtime(image), sample.metainfo, rescale)
            for image, sample in zip(images.split(1), samples)
        ]

    def _instances(
        self, detections: list[Tensor], meta: dict[str, Any], rescale: bool
    ) -> Any:
        """Detections of a graph with NMS, clipped and scaled as mmdet does."""
        device = self.data_preprocessor.device
        boxes, scores, labels = (found.to(device) for found in detections)
        coder = getattr(self.bbox_head, 'bbox_coder', None)
        if getattr(coder, 'clip_border', False):
            # The graph knows only the size of the padded image.
            height, width = meta['img_shape'][:2]
            limit = boxes.new_tensor([width, height, width, height])
            boxes = boxes.clamp(min=0).minimum(limit)
        if rescale:
            boxes = boxes / boxes.new_tensor(meta['scale_factor']).repeat(2)
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)

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
        """Not possible: an exported file does not give its features.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            f'{self.runtime.path} gives only the outputs of the head; for '
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
