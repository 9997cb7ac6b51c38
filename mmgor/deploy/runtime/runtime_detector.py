"""``RuntimeDetector``: a file that has a whole single-stage detector.

The file computes the outputs of the head; mmdet decodes them and runs NMS.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmgor.registry import MODELS

from .file_detector import FileDetector


@MODELS.register_module()
class RuntimeDetector(FileDetector):
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
        super().__init__(file, data_preprocessor, threads, integer_kernels)
        self.bbox_head = MODELS.build(
            ConfigDict({**bbox_head, 'test_cfg': test_cfg})
        )

    def decode(
        self,
        outputs: Any,
        samples: list,
        size: Sequence[int],
        rescale: bool = True,
    ) -> list[Any]:
        """See :meth:`.FileDetector.decode`; with the head's own code."""
        head: Any = self.bbox_head
        shape = dict(batch_input_shape=tuple(size))
        metas = [{**sample.metainfo, **shape} for sample in samples]
        return head.predict_by_feat(
            *outputs, batch_img_metas=metas, rescale=rescale
        )

    def detect(
        self, images: Tensor, samples: list, rescale: bool = True
    ) -> list[Any]:
        """See :meth:`.FileDetector.detect`. A graph with NMS has decoded."""
        if not self.runtime.metadata['nms']:
            return super().detect(images, samples, rescale)
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
