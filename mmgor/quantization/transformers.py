"""Detectors of the DETR family with quantized transformers.

mmdet builds encoder and decoder inside the detector and not from a registry,
so the wrappers of backbone, neck and head do not reach them. Here the detector
itself is the wrapper.
"""

from collections.abc import Collection
from inspect import signature
from typing import Any, ClassVar

from mmdet.models.detectors import (
    DABDETR,
    DDQDETR,
    DETR,
    DINO,
    ConditionalDETR,
    DeformableDETR,
    GroundingDINO,
)
from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor, nn

from mmgor.registry import MODELS

from .convert import quantize_layers
from .policy import QuantPolicy

# The first three have wrappers of their own, with other rules. A language
# model stays in float.
_OTHERS = {'backbone', 'neck', 'bbox_head', 'language_model'}


class Transformer(nn.ModuleDict):
    """The modules that a DETR builds itself, with a name used in messages."""


class QuantTransformerMixin(DetectionTransformer):
    """Quantizes the layers outside backbone, neck and head, in place.

    It is listed before the stock class. The quantized layers are those of
    encoder and decoder and those between them. Layers that predict reference
    points or sizes get ``first_last_bits``. Two kinds of layers stay in float:
    the projections of ``nn.MultiheadAttention``, which reads their weights
    without calling them, and the layers that tell deformable attention where
    to sample and with which weight (see
    :func:`~mmgor.quantization.convert.find_layers`).

    Args:
        *args: Arguments of the stock detector.
        quant (dict, optional): See :class:`QuantPolicy`. Override patterns
            are paths in the detector, e.g. 'encoder.layers.0.*'.
        **kwargs: Arguments of the stock detector.

    Raises:
        ValueError: If every tensor should be rounded (``tensors='all'``).

    Example:
        >>> model = dict(type='GoRDetector', detector='QuantDeformableDETR',
        ...              quant=dict(w_bits=4, a_bits=4))
    """

    #: Paths of layers whose outputs are coordinates, as a head's are.
    predictions: ClassVar[Collection[str]] = ('reference_points_fc',)

    def __init__(
        self, *args: Any, quant: dict | None = None, **kwargs: Any
    ) -> None:
        policy = QuantPolicy.from_config(quant)
        if policy.tensors == 'all':
            raise ValueError(
                f"{type(self).__name__} expected tensors='inputs', got "
                "'all': the operations of attention are not planned. Write "
                "quant=dict(tensors='inputs') without a target that needs "
                "'all'."
            )
        super().__init__(*args, **kwargs)
        transformer = Transformer(
            {k: m for k, m in self.named_children() if k not in _OTHERS}
        )
        quantize_layers(transformer, policy, set(self.predictions))

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: list | None = None
    ) -> Any:
        """Head outputs (``mode='tensor'``), in training mode as well.

        Calibration runs in training mode, in which the stock method passes
        arguments to the head that only its loss accepts.
        """
        features = self.extract_feat(batch_inputs)
        inputs = self.forward_transformer(features, batch_data_samples)
        takes = signature(self.bbox_head.forward).parameters
        return self.bbox_head(**{k: inputs[k] for k in takes if k in inputs})


@MODELS.register_module()
class QuantDeformableDETR(QuantTransformerMixin, DeformableDETR):
    """:class:`DeformableDETR` with a quantized transformer."""


@MODELS.register_module()
class QuantDINO(QuantTransformerMixin, DINO):
    """:class:`DINO` with a quantized transformer."""


@MODELS.register_module()
class QuantDDQDETR(QuantTransformerMixin, DDQDETR):
    """:class:`DDQDETR` with a quantized transformer."""


@MODELS.register_module()
class QuantDETR(QuantTransformerMixin, DETR):
    """:class:`DETR` with a quantized transformer."""


@MODELS.register_module()
class QuantConditionalDETR(QuantTransformerMixin, ConditionalDETR):
    """:class:`ConditionalDETR` with a quantized transformer."""

    predictions = ('decoder.ref_point_head.layers.1',)


@MODELS.register_module()
class QuantDABDETR(QuantTransformerMixin, DABDETR):
    """:class:`DABDETR` with a quantized transformer."""

    predictions = ('decoder.ref_anchor_head.layers.1',)


@MODELS.register_module()
class QuantGroundingDINO(QuantTransformerMixin, GroundingDINO):
    """:class:`GroundingDINO` with a quantized transformer.

    Its language model, such as BERT, stays in float: a detector with fixed
    classes runs it once.
    """
