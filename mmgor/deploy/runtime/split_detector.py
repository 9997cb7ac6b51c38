"""``SplitDetector``: a file that has a part of a detector.

The file computes backbone, neck and dense head; PyTorch computes the rest,
such as the RoI head of a two-stage detector or the transformer of a DETR.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from mmgor.deploy.parts import parts_of
from mmgor.io.checkpoint import weights_checksum
from mmgor.io.checkpoint_loader import load_weights
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.registry import MODELS

from .file_detector import FileDetector


@MODELS.register_module()
class SplitDetector(FileDetector):
    """Runs an exported file, and the rest of its detector in PyTorch.

    Args:
        file (str): File that ``tools/export.py`` wrote.
        detector (dict): The detector that it was exported from.
        checkpoint (str): Its checkpoint. The rest computes with its weights.
        threads (int, optional): Of the file, see :func:`open_runtime`.
        integer_kernels (bool, optional): See :func:`open_runtime`.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the file can't be used, or was exported from another
            checkpoint.
        RuntimeError: If the checkpoint does not fit the detector.
    """

    def __init__(
        self,
        file: str,
        detector: dict,
        checkpoint: str,
        threads: int | None = None,
        integer_kernels: bool | None = None,
    ) -> None:
        super().__init__(
            file, detector.get('data_preprocessor'), threads, integer_kernels
        )
        # DETRs write into their config.
        self.detector: Any = MODELS.build(deepcopy(detector)).eval()
        weights, _ = read_state_dict(checkpoint)
        load_weights(self.detector, weights, f'checkpoint {checkpoint}')
        ours = weights_checksum(self.detector.state_dict())
        if ours != self.runtime.metadata['weights_sha256']:
            raise ValueError(
                f'{file} was not exported from {checkpoint}: the SHA-256 of '
                'their weights differ. Give the checkpoint that it came '
                'from, or export it again.'
            )
        self._parts = parts_of(self.detector)
        self._check_parts()
        for name in self._parts.written:
            if name != self._parts.head:  # the head decodes
                setattr(self.detector, name, nn.Identity())

    def _check_parts(self) -> None:
        """Make sure that the file has what the detector is to be given."""
        metadata, parts = self.runtime.metadata, self._parts
        groups = 1 + (parts.head is not None)
        outputs = metadata['outputs']
        nested = all(isinstance(group, list) for group in outputs)
        if metadata['rest'] != parts.rest or not (
            nested and len(outputs) == groups
        ):
            raise ValueError(
                f'{self.runtime.path} does not fit its detector: expected '
                f'{groups} groups of outputs without {parts.rest}, got '
                f'{outputs!r:.100} without {metadata["rest"]}. Export it '
                'again.'
            )

    def decode(
        self,
        outputs: Any,
        samples: list,
        size: Sequence[int],
        rescale: bool = True,
    ) -> list[Any]:
        """See :meth:`.FileDetector.decode`; with the detector's own code.

        The samples get the detections and the size.
        """
        for sample in samples:
            # A transformer masks what is outside of the image.
            sample.set_metainfo(dict(batch_input_shape=tuple(size)))
        no_images = outputs[0][0].new_empty(0)
        with self._parts.giving(self.detector, outputs):
            found = self.detector.predict(no_images, samples, rescale)
        return [sample.pred_instances for sample in found]
