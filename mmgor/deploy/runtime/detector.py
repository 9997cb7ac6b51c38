"""Detection in pictures and videos from an exported file alone."""

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

from mmgor.deploy.description.allowed import check_allowed, check_parts
from mmgor.deploy.description.metadata import exported_config, read_metadata
from mmgor.deploy.description.metadata_check import blaming
from mmgor.image_channels import COLOUR
from mmgor.io.config_reader import type_name
from mmgor.io.config_values import number
from mmgor.registry import MODELS

from .images import Picture, as_bgr, as_input, list_pictures, open_video
from .runtime_config import runtime_detector_cfg


class Detector:
    """An exported file, ready for pictures.

    The file holds the config that it was exported with: its test pipeline,
    preprocessing and decoding are used.

    Args:
        path (str | Path): ``.onnx`` or ``.xml`` that ``tools/export.py``
            wrote.
        threads (int, optional): Threads of the backend; default: its choice.
        integer_kernels (bool): See :func:`open_runtime`.
        score_thr (float): Detections of a lower score are left out.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the file or ``score_thr`` can't be used.

    Attributes:
        classes (list[str]): Class names in label order.

    Example:
        >>> detector = Detector('student.onnx')
        >>> (sample,) = detector('street.jpg')
        >>> boxes = sample.pred_instances.bboxes  # (n, 4), x1 y1 x2 y2
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        integer_kernels: bool = False,
        score_thr: float = 0.3,
    ) -> None:
        self.score_thr = number('score_thr', score_thr, '[0, 1]')
        metadata = read_metadata(path)
        with blaming(path):
            model, steps = described_parts(metadata, path)
            init_default_scope('mmdet')
            check_parts(model)
            self._pipeline = Compose(steps)
        self._path = path
        self.classes: list[str] = metadata['classes']
        model.update(threads=threads, integer_kernels=integer_kernels)
        self._model = MODELS.build(model).eval()
        self._channels = metadata['input'].get('channels', COLOUR)
        self._visualizer = DetLocalVisualizer()
        self._visualizer.dataset_meta = dict(classes=self.classes)

    def __call__(
        self, inputs: Picture | Sequence[Picture], batch_size: int = 1
    ) -> list[Any]:
        """Detect objects.

        Args:
            inputs (str | Path | ndarray | list): A picture's path, a picture
                of shape (H, W, 3) in BGR and uint8 (for a file of other
                channels, see :func:`~.pictures.as_input`), a list of those,
                or a folder, whose pictures are taken in the order of their
                names.
            batch_size (int): Pictures a batch.

        Returns:
            list[DetDataSample]: One a picture, with ``pred_instances``:
            ``bboxes`` (n, 4) as x1, y1, x2, y2 in pixels of the picture,
            ``scores`` (n, ) in descending order and ``labels`` (n, ).

        Raises:
            FileNotFoundError: If there is no such picture or folder.
            TypeError: If ``inputs`` is nothing of these.
            ValueError: If there is no picture in the folder, one can't be
                read, has other channels, or is larger than the file takes.
        """
        if batch_size < 1:
            raise ValueError(
                f'batch_size must be at least 1, got {batch_size}.'
            )
        pictures = list_pictures(inputs)
        return [
            sample
            for start in range(0, len(pictures), batch_size)
            for sample in self._detect(pictures[start : start + batch_size])
        ]

    def video(self, path: str | Path) -> Iterator[tuple[NDArray, Any]]:
        """Detect objects frame by frame.

        Args:
            path (str | Path): A file that OpenCV can decode.

        Returns:
            Iterator[tuple[ndarray, DetDataSample]]: Each frame, shape
            (H, W, 3) in BGR, and what is in it.

        Raises:
            FileNotFoundError: If the file is not there.
            ValueError: If it has no frame that can be decoded.
        """
        frames = open_video(path)
        return ((frame, self._detect([frame])[0]) for frame in frames)

    def draw(self, image: NDArray, sample: Any) -> NDArray:
        """Boxes, class names and scores on a picture.

        Args:
            image (ndarray): Shape (H, W, 3) in BGR, uint8; other channels
                are shown in grey or by the first three.
            sample (DetDataSample): What was found in it.

        Returns:
            ndarray: Shape (H, W, 3) in BGR.
        """
        # The visualizer takes RGB and scores above a threshold.
        self._visualizer.add_datasample(
            'picture',
            mmcv.bgr2rgb(as_bgr(image)),
            sample,
            draw_gt=False,
            pred_score_thr=-1,
        )
        return mmcv.rgb2bgr(self._visualizer.get_image())

    @torch.no_grad()
    def _detect(self, pictures: list[Picture]) -> list[Any]:
        loaded = [self._load(picture) for picture in pictures]
        with blaming(self._path):
            for picture, item in zip(pictures, loaded):
                self._check_channels(picture, item['inputs'])
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

    def _check_channels(self, picture: Picture, image: Tensor) -> None:
        if len(image) != self._channels:
            raise ValueError(
                f'{_name(picture)} has {len(image)} channels as the test '
                f'pipeline loads it, but {self._path} takes {self._channels}; '
                'expected pictures like those of its training.'
            )

    def _check_labels(self, labels: Tensor) -> None:
        unknown = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(unknown):
            raise ValueError(
                f'{self._path} gives the label {int(unknown[0])}, but tells '
                f'{len(self.classes)} class names. Export it again.'
            )

    def _load(self, picture: Picture) -> dict[str, Any]:
        data = as_input(picture, self._channels)
        try:
            loaded: dict[str, Any] = self._pipeline(data)
        except (AssertionError, cv2.error) as error:
            # mmcv's of a file without a picture, OpenCV's of an empty file or
            # of a picture that resizing leaves nothing of.
            raise ValueError(
                f'{_name(picture)} could not be decoded or resized ({error}); '
                'expected a picture that OpenCV reads, with sides not too '
                'different.'
            ) from error
        except Exception:
            with blaming(self._path):
                raise
        return loaded


def _name(picture: Picture) -> str:
    if isinstance(picture, np.ndarray):
        return f'a picture of shape {picture.shape}'
    return str(picture)


def described_parts(
    metadata: dict[str, Any], path: str | Path
) -> tuple[ConfigDict, list]:
    """What a :class:`Detector` builds of a file's description.

    Args:
        metadata (dict): From :func:`read_metadata`.
        path (str | Path): Of the file.

    Returns:
        tuple[ConfigDict, list]: Of a :class:`RuntimeDetector`, and the test
        pipeline for pictures.

    Raises:
        ValueError: If the file does not tell, or has something built that is
            not allowed.
    """
    cfg = exported_config(metadata)
    model = runtime_detector_cfg(cfg, path)
    steps = _for_pictures(get_test_pipeline_cfg(cfg))
    check_allowed(cfg.get('default_scope'), model, steps)
    return model, steps


def _for_pictures(pipeline: list) -> list:
    """A test pipeline whose first step takes paths and arrays."""
    steps = deepcopy(list(pipeline))
    first = type_name(steps[0]) if steps else 'no pipeline'
    if first not in ('LoadImageFromFile', 'LoadImageFromNDArray'):
        raise ValueError(
            "the test pipeline in the file's config must start with "
            'LoadImageFromNDArray or LoadImageFromFile, got '
            f'{first}; export with a config whose test_dataloader loads '
            'pictures so.'
        )
    steps[0]['type'] = 'mmdet.InferencerLoader'
    return steps
