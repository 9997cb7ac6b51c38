"""Which parts of a detector an exported file has, and what they compute.

A file has the whole of a single-stage detector. Of others it has the parts
that do the same work for every image: backbone, neck and, if it reads only
their feature maps, the dense head. The rest runs in PyTorch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

from mmgor.deploy.head_outputs import name_outputs
from mmgor.io.checkpoint import is_deployed

# Parts that no file has, and why.
_OUTSIDE = dict(
    roi_head='pools features of proposals, whose number differs by image',
    mask_head='gives masks',
    encoder='is a transformer',
    decoder='is a transformer',
)
# Detectors that do not give boxes from an image alone.
_REFUSED = dict(
    panoptic_head='gives masks',
    panoptic_fusion_head='gives masks',
    language_model='reads text',
)
_TRANSFORMER = ('encoder', 'decoder')
_NOT_A_PART = ('data_preprocessor',)


@dataclass(frozen=True)
class Parts:
    """The parts of a detector.

    Attributes:
        head (str, optional): Name of the head in the file.
        written (list[str]): Names of all parts in the file.
        rest (list[str]): Names of the other parts; empty for a single-stage
            detector.
    """

    head: str | None
    written: list[str]
    rest: list[str]

    def of(self, detector: nn.Module) -> nn.Module:
        """A detector with the written parts alone.

        Args:
            detector (nn.Module): It is not changed.

        Returns:
            nn.Module: The detector itself if all parts are written, else a
            shallow copy without the rest.
        """
        if not self.rest:
            return detector
        part = copy(detector)
        part._modules = {
            name: child
            for name, child in detector._modules.items()
            if name not in self.rest and is_deployed(f'{name}.')
        }
        return part

    def outputs(self, detector: Any, images: Tensor) -> Any:
        """What a file gives.

        Args:
            detector (nn.Module): With the written parts.
            images (Tensor): Shape (N, C, H, W), preprocessed.

        Returns:
            Any: The outputs of the head, nested as it gives them. If there is
            a rest: a list of the feature maps and, if a head is written, of
            its outputs.
        """
        features = detector.extract_feat(images)
        heads = [] if self.head is None else [getattr(detector, self.head)]
        if not self.rest:
            return heads[0](features)
        return [list(features), *(head(features) for head in heads)]

    def name(self, outputs: Any) -> Any:
        """Names in the structure of :meth:`outputs`.

        Args:
            outputs (Any): From :meth:`outputs`.

        Returns:
            Any: Names such as 'output_0_2'. If there is a rest: such as
            'features_2' and 'rpn_head_0_2'.
        """
        if not self.rest:
            return name_outputs(outputs)
        groups = ['features'] + ([] if self.head is None else [self.head])
        return [
            name_outputs(values, group)
            for values, group in zip(outputs, groups, strict=True)
        ]

    @contextmanager
    def giving(self, detector: Any, outputs: Any) -> Iterator[None]:
        """In the block, the detector's own code takes ``outputs`` for what the
        written parts compute.

        Args:
            detector (nn.Module): Its ``extract_feat``, and ``forward`` of the
                head, give them.
            outputs (Any): As :meth:`outputs` gives them.
        """
        features, of_head = (), outputs
        if self.rest:
            features, *heads = outputs
            of_head = heads[0] if heads else None
        values: list[tuple[Any, str, Any]] = [
            (detector, 'extract_feat', tuple(features))
        ]
        if self.head is not None:
            values.append((getattr(detector, self.head), 'forward', of_head))
        for module, method, value in values:
            vars(module)[method] = _constant(value)
        try:
            yield
        finally:
            for module, method, _ in values:
                del vars(module)[method]

    def describe(self, detector: nn.Module) -> str:
        """Names both groups of parts, and says why the rest is no part of a
        file."""
        inside, outside = (
            ', '.join(
                f'{name} ({type(detector._modules[name]).__name__}'
                f'{_reason(name)})'
                for name in names
            )
            for names in (self.written, self.rest)
        )
        return f'in the file: {inside}; not in the file: {outside}'


def _reason(name: str) -> str:
    return f', {_OUTSIDE[name]}' if name in _OUTSIDE else ''


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def parts_of(detector: nn.Module) -> Parts:
    """The parts of a detector that a file has, and the others.

    Args:
        detector (nn.Module): Any detector of mmdet.

    Raises:
        ValueError: If it does not detect objects in images, or has no head or
            backbone.
    """
    children = {
        name: child
        for name, child in detector.named_children()
        if name not in _NOT_A_PART and is_deployed(f'{name}.')
    }
    reasons = [
        f'{name} ({type(children[name]).__name__}) {reason}'
        for name, reason in _REFUSED.items()
        if name in children
    ]
    outside = [name for name in _OUTSIDE if name in children]
    if 'bbox_head' not in children and not outside:
        reasons.append('it has no bbox_head')
    if 'backbone' not in children:
        reasons.append('it has no backbone')
    if reasons:
        raise ValueError(
            f'{type(detector).__name__} can not be exported: '
            f'{"; ".join(reasons)}. Expected a single-stage detector, such as '
            'RetinaNet, FCOS, ATSS, GFL, TOOD, VFNet, RepPoints, YOLOX, '
            'YOLOF, YOLOV3 or RTMDet, or a two-stage detector or DETR, of '
            'which backbone, neck and dense head are written.'
        )
    if not outside:
        return Parts('bbox_head', list(children), [])
    head = _head_on_features(children)
    named = ('backbone', 'neck', head)
    written = [name for name in children if name in named]
    rest = [name for name in children if name not in named]
    return Parts(head, written, rest)


def _head_on_features(children: dict[str, Any]) -> str | None:
    """The head that reads feature maps alone, besides a part that no file
    has."""
    if any(name in children for name in _TRANSFORMER):
        return None  # its head reads queries
    for name in ('rpn_head', 'bbox_head'):
        # Others call forward() with something else, or not at all.
        predict = getattr(type(children.get(name)), 'predict', None)
        if predict is BaseDenseHead.predict:
            return name
    return None
