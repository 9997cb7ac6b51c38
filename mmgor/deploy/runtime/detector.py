"""``Detector``: detects objects in images and videos with an exported file.

No config, checkpoint or data set is needed.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from torch import Tensor

from mmgor.deploy.description.allowed import check_allowed, check_buildable
from mmgor.deploy.description.metadata_check import errors_naming
from mmgor.deploy.description.metadata_reader import (
    exported_config,
    read_metadata,
)
from mmgor.io.config_reader import type_name
from mmgor.io.config_values import number
from mmgor.listing import listed
from mmgor.registry import MODELS

from .images import ImageInput, as_bgr, as_input, list_images, open_video
from .runtime_config import runtime_detector_cfg


class Detector:
    """Detects objects with an exported file.

    The test pipeline, the preprocessing and the head come from the config
    inside the file.

    Args:
        path (str | Path): File that ``tools/export.py`` wrote,
            such as ``.onnx``.
        threads (int, optional): Number of threads of the backend. By default
            the backend chooses.
        integer_kernels (bool, optional): See :func:`.open_runtime`.
        score_thr (float): Detections with a lower score are left out.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file or ``score_thr`` can't be used.

    Attributes:
        classes (list[str]): Class names in label order.

    Example:
        .. code-block:: python

            detector = Detector('student.onnx')
            (sample,) = detector('street.jpg')
            boxes = sample.pred_instances.bboxes  # (n, 4), x1 y1 x2 y2
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        integer_kernels: bool | None = None,
        score_thr: float = 0.3,
    ) -> None:
        self.score_thr = number('score_thr', score_thr, '[0, 1]')
        metadata = read_metadata(path)
        with errors_naming(path):
            model, pipeline = detector_configs(metadata, path)
            init_default_scope('mmdet')
            check_buildable(model)
            self._pipeline = Compose(pipeline)
        self._path = path
        self.classes: list[str] = metadata['classes']
        model.update(threads=threads, integer_kernels=integer_kernels)
        self._model = MODELS.build(model).eval()
        self._channels = metadata['input']['channels']
        self._visualizer = DetLocalVisualizer()
        self._visualizer.dataset_meta = dict(classes=self.classes)

    def __call__(
        self, inputs: ImageInput | Sequence[ImageInput], batch_size: int = 1
    ) -> list[Any]:
        """Detect objects in images.

        Args:
            inputs (str | Path | ndarray | list): The path of an image, an
                image of shape (H, W, 3) in BGR and uint8 (for a file that
                takes other channels, see :func:`~.images.as_input`), a list
                of those, or the path of a folder, whose images are taken in
                the order of their names.
            batch_size (int): Images per batch.

        Returns:
            list[DetDataSample]: One per image, with ``pred_instances``:
            ``bboxes`` (n, 4) as x1, y1, x2, y2 in pixels of the image,
            ``scores`` (n, ) in descending order and ``labels`` (n, ).

        Raises:
            FileNotFoundError: If an image or folder does not exist.
            TypeError: If ``inputs`` has another type.
            ValueError: If the folder has no image, or an image can't be
                read, has other channels, or is larger than the file takes.
        """
        if batch_size < 1:
            raise ValueError(
                f'batch_size must be at least 1, got {batch_size}.'
            )
        images = list_images(inputs)
        return [
            sample
            for start in range(0, len(images), batch_size)
            for sample in self._detect(images[start : start + batch_size])
        ]

    def video(self, path: str | Path) -> Iterator[tuple[NDArray, Any]]:
        """Detect objects in a video, frame by frame.

        Args:
            path (str | Path): A file that OpenCV can decode.

        Returns:
            Iterator[tuple[ndarray, DetDataSample]]: Each frame, shape
            (H, W, 3) in BGR, and its detections.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If it has no frame that can be decoded.
        """
        frames = open_video(path)
        return ((frame, self._detect([frame])[0]) for frame in frames)

    def draw(self, image: NDArray, sample: Any) -> NDArray:
        """Draw boxes, class names and scores on a copy of an image.

        Args:
            image (ndarray): Shape (H, W, 3) in BGR, uint8. Of other channels
                the first three are shown, or one as grey.
            sample (DetDataSample): The detections in the image.

        Returns:
            ndarray: Shape (H, W, 3) in BGR.
        """
        # The visualizer takes RGB, and shows scores above its threshold.
        self._visualizer.add_datasample(
            'image',
            mmcv.bgr2rgb(as_bgr(image)),
            sample,
            draw_gt=False,
            pred_score_thr=-1,
        )
        return mmcv.rgb2bgr(self._visualizer.get_image())

    @torch.no_grad()
    def _detect(self, images: list[ImageInput]) -> list[Any]:
        loaded = [self._load(image) for image in images]
        with errors_naming(self._path):
            for image, item in zip(images, loaded):
                self._check_channels(image, item['inputs'])
            samples = self._model.test_step(
                dict(
                    inputs=[item['inputs'] for item in loaded],
                    data_samples=[item['data_samples'] for item in loaded],
                )
            )
        for sample in samples:
            found = sample.pred_instances
            self._check_labels(found.labels)
            sample.pred_instances = found[found.scores >= self.score_thr]
        return samples

    def _check_channels(self, image: ImageInput, loaded: Tensor) -> None:
        if len(loaded) != self._channels:
            raise ValueError(
                f'{_name(image)} has {len(loaded)} channels after the test '
                f'pipeline, but {self._path} takes {self._channels}; expected '
                'images like those of its training.'
            )

    def _check_labels(self, labels: Tensor) -> None:
        unknown = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(unknown):
            raise ValueError(
                f'{self._path} gives the label {int(unknown[0])}, but has '
                f'{len(self.classes)} class names. Export it again.'
            )

    def _load(self, image: ImageInput) -> dict[str, Any]:
        data = as_input(image, self._channels)
        try:
            loaded: dict[str, Any] = self._pipeline(data)
        except (AssertionError, cv2.error) as error:
            # mmcv asserts that a file is an image. OpenCV fails on an empty
            # file and on an image that resizing leaves no pixel of.
            raise ValueError(
                f'{_name(image)} could not be decoded or resized ({error}); '
                'expected an image that OpenCV reads, and whose sides are '
                'not too different.'
            ) from error
        except Exception:
            with errors_naming(self._path):
                raise
        return loaded


def _name(image: ImageInput) -> str:
    if isinstance(image, np.ndarray):
        return f'an image of shape {image.shape}'
    return str(image)


def detector_configs(
    metadata: dict[str, Any], path: str | Path
) -> tuple[ConfigDict, list]:
    """The configs that a :class:`Detector` builds.

    Args:
        metadata (dict): From :func:`read_metadata`.
        path (str | Path): The exported file.

    Returns:
        tuple[ConfigDict, list]: Config of a :class:`.RuntimeDetector`, and
        the test pipeline for images.

    Raises:
        ValueError: If the metadata has no test pipeline, or a config that a
            file may not build, or if the file has a part of a detector.
    """
    if metadata['rest']:
        raise ValueError(
            f'{path} has only a part of its detector; PyTorch has to run '
            f'{listed(metadata["rest"])}. Give its config and checkpoint, '
            f'too: python tools/test.py CONFIG {path} --rest CHECKPOINT.'
        )
    cfg = exported_config(metadata)
    model = runtime_detector_cfg(cfg, path)
    pipeline = _for_images(get_test_pipeline_cfg(cfg))
    check_allowed(cfg.get('default_scope'), model, pipeline)
    return model, pipeline


def _for_images(pipeline: list) -> list:
    """A test pipeline whose first step takes paths and arrays."""
    steps = deepcopy(list(pipeline))
    first = type_name(steps[0]) if steps else 'no pipeline'
    if first not in ('LoadImageFromFile', 'LoadImageFromNDArray'):
        raise ValueError(
            "the test pipeline in the file's config must start with "
            f'LoadImageFromNDArray or LoadImageFromFile, got {first}; export '
            'with a config whose test_dataloader loads images with one of '
            'them.'
        )
    steps[0]['type'] = 'mmdet.InferencerLoader'
    return steps
