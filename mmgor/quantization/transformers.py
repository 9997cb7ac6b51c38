"""Transformer detectors (the DETR family) with quantized transformers.

mmdet makes encoder and decoder inside the detector and not from a registry,
so that no wrapper of a part reaches them: the detector itself is the wrapper.
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
)
from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor, nn

from mmgor.registry import MODELS

from .convert import quantize_layers
from .policy import QuantPolicy

# They have wrappers of their own, with other rules.
_WRAPPED = {'backbone', 'neck', 'bbox_head'}


class Transformer(nn.ModuleDict):
    """What lies outside backbone, neck and head; messages have its name."""


class QuantTransformerMixin(DetectionTransformer):
    """Quantizes the layers outside backbone, neck and head, in place.

    Listed before the stock class. These layers are those of encoder and
    decoder and what lies between them; the layers that predict reference
    points or sizes have ``first_last_bits``. In float stay the projections of
    ``nn.MultiheadAttention``, which reads its weights without calling a
    layer, and of deformable attention where to sample and with which weight
    (see :func:`~mmgor.quantization.convert.find_layers`).

    Args:
        *args: Of the stock detector.
        quant (dict, optional): See :class:`QuantPolicy`; patterns are paths
            in the detector, e.g. 'encoder.layers.0.*'.
        **kwargs: Of the stock detector.

    Example:
        >>> model = dict(type='GoRDetector', detector='QuantDeformableDETR',
        ...              quant=dict(w_bits=4, a_bits=4))
    """

    #: Layers whose outputs are coordinates, as a head's are.
    predictions: ClassVar[Collection[str]] = ('reference_points_fc',)

    def __init__(
        self, *args: Any, quant: dict | None = None, **kwargs: Any
    ) -> None:
        policy = QuantPolicy.from_config(quant)
        super().__init__(*args, **kwargs)
        parts = Transformer(
            {k: m for k, m in self.named_children() if k not in _WRAPPED}
        )
        quantize_layers(parts, policy, set(self.predictions))

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: list | None = None
    ) -> Any:
        """Head outputs (``mode='tensor'``), in training mode too.

        Calibration runs in it, and there the stock method hands the head
        what only its loss takes.
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
