"""Makes inputs of zeros for a head, from its arguments and attributes."""

from collections.abc import Iterator
from inspect import Parameter, signature
from itertools import product
from math import ceil
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmgor.quantization.convert import find_layers

# Sides and channels of the images to try with a backbone. Most backbones
# accept the small side; some have position embeddings for one size.
_SIDES = (64, 224)
_CHANNELS = (3, *range(1, 17))
# Side of the coarsest feature map in pixels. Deformable 3 x 3 kernels refuse
# smaller ones.
_COARSEST = 4
# Number of levels of a head that does not declare it.
_MAPS = 5
# Number of queries, words or points.
_FEW = 3
# Channels of the language model (BERT).
_BERT = 768
_LEVEL_COUNTS = ('num_levels', 'num_feat_levels')
_LEVEL_STRIDES = ('strides', 'featmap_strides')


def images(backbone: nn.Module) -> Iterator[Tensor]:
    """Images of zeros to try with a backbone, the likeliest first."""
    parameter = next(backbone.parameters())
    for side, channels in product(_SIDES, _CHANNELS):
        yield parameter.new_zeros(1, channels, side, side)


def image_inputs(backbone: nn.Module) -> Iterator[dict[str, Any]]:
    """Arguments of a backbone's ``forward`` to try, the likeliest first."""
    name = next(iter(signature(backbone.forward).parameters))
    return ({name: image} for image in images(backbone))


def declared_levels(head: nn.Module) -> int | None:
    """The number of pyramid levels that a head declares, or None.

    It is read from an anchor or point generator, from a number of levels, or
    from strides, in this order.
    """
    own = vars(head)
    counts = [getattr(value, 'num_levels', None) for value in own.values()]
    counts += [own.get(name) for name in _LEVEL_COUNTS]
    strides = [own.get(name) for name in _LEVEL_STRIDES]
    counts += [len(s) for s in strides if isinstance(s, list | tuple)]
    return next((n for n in counts if isinstance(n, int)), None)


def neck_inputs(
    neck: nn.Module, config: dict[str, Any]
) -> list[dict[str, Any]]:
    """Arguments of a neck's ``forward`` to try: a pyramid of feature maps,
    then maps of one size.

    Args:
        neck (nn.Module): A stock neck.
        config (dict[str, Any]): The arguments that it was built with.
    """
    name = next(iter(signature(neck.forward).parameters))
    channels = _channels(neck, {**config, **vars(neck)})
    # YOLOV3Neck lists the channels of the coarsest map first.
    orders = [channels, channels[::-1]]
    # Necks of MMYOLO keep channels that they multiply by this factor, and
    # round up to a multiple of 8 or down to an integer.
    factor = vars(neck).get('widen_factor', 1)
    if factor != 1:
        orders = [
            [ceil(c * factor / 8) * 8 for c in channels],
            [int(c * factor) for c in channels],
            *orders,
        ]
    with torch.device(next(neck.parameters()).device):
        return [
            {name: _maps(order, equal)}
            for equal in (False, True)
            for order in orders
        ]


def head_inputs(
    head: nn.Module, config: dict[str, Any]
) -> list[dict[str, Any]]:
    """Arguments of ``head.forward`` to try, the likeliest first.

    Some argument names have only one meaning in mmdet; these arguments get
    what the name says. All others are tried in this order: as feature maps (a
    tuple with one map per level, all of 4 x 4 pixels, or of a pyramid whose
    coarsest map has 4 x 4 pixels), as the features of two regions, of shape
    (2, C, H, W), and as vectors of shape (2, C).

    Args:
        head (nn.Module): A stock head.
        config (dict[str, Any]): The arguments that it was built with. Some of
            them are not kept as attributes.
    """
    # Heads of MMYOLO keep their layers, and what describes them, in a module.
    inner = getattr(head, 'head_module', None)
    known = {**config, **vars(inner or head), **vars(head)}
    channels = _channels(head, known)
    with torch.device(next(head.parameters()).device):
        pyramids = [_maps(channels, equal) for equal in (True, False)]
        candidates: list[tuple[Any, dict[str, Any]]] = [
            (maps, _named(known, maps)) for maps in pyramids
        ]
        regions = torch.zeros(2, channels[0], *_region(known, 7))
        vectors = torch.zeros(2, channels[0])
    candidates += [(data, candidates[0][1]) for data in (regions, vectors)]
    required, optional = _parameters(head)
    extra = [name for name in optional if name in candidates[0][1]]
    return [
        {name: named.get(name, data) for name in [*required, *more]}
        for more in ([], extra)[: 1 + bool(extra)]
        for data, named in candidates
    ]


def _parameters(head: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the arguments without a default, and of those with one."""
    by_name = [
        p
        for p in signature(head.forward).parameters.values()
        if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    required = [p.name for p in by_name if p.default is Parameter.empty]
    return required, [p.name for p in by_name if p.name not in required]


def _channels(head: nn.Module, known: dict[str, Any]) -> list[int]:
    """Channels of each level's feature map."""
    named = [name for name in known if name.endswith('in_channels')]
    # The plain name comes before the name of a branch.
    channels = next((known[name] for name in sorted(named, key=len)), None)
    if channels is None:
        layer: Any = next(iter(find_layers(head).values()))
        channels = getattr(layer, 'in_channels', None) or layer.in_features
    if isinstance(channels, int):
        return [channels] * (declared_levels(head) or _MAPS)
    return list(channels)


def _maps(channels: list[int], equal: bool) -> tuple[Tensor, ...]:
    """Feature maps of one size, which run fast, or each half as large as the
    one before it."""
    places = reversed(range(len(channels)))
    sides = [_COARSEST * 2 ** (0 if equal else place) for place in places]
    return tuple(torch.zeros(1, c, s, s) for c, s in zip(channels, sides))


def _region(known: dict[str, Any], default: int) -> tuple[int, int]:
    """Height and width of a region's feature map."""
    size = known.get('roi_feat_size') or default
    return (size, size) if isinstance(size, int) else tuple(size)


def _named(known: dict[str, Any], maps: tuple[Tensor, ...]) -> dict[str, Any]:
    """Values for argument names that have only one meaning in mmdet's heads.

    The batch has as many images as there are decoder layers. One shape of
    ``references`` then fits heads that have references per decoder layer and
    heads that have a single set.
    """
    depth = known.get('num_pred_layer') or 2
    channels, classes = maps[0].shape[1], known.get('num_classes') or 1
    dim = known.get('embed_dims') or channels
    side = 4 * maps[0].shape[-1]
    image = dict(batch_input_shape=(side, side), img_shape=(side, side))
    rois, roi = (2, channels), _region(known, 14)
    return dict(
        # Heads of the DETR family: decoder layers, images, queries; then the
        # words, as BERT returns them.
        hidden_states=torch.zeros(depth, depth, _FEW, dim),
        references=torch.zeros(depth, _FEW, 2),
        memory_text=torch.zeros(depth, _FEW, dim),
        text_token_mask=torch.ones(depth, _FEW, dtype=torch.bool),
        language_feats=dict(
            hidden=torch.zeros(1, _FEW, _BERT),
            embedded=torch.zeros(1, _FEW, _BERT),
            masks=torch.ones(1, _FEW),
        ),
        # Region heads.
        proposal_feat=torch.zeros(1, *rois),
        mask_feat=torch.zeros(*rois, *roi),
        mask_preds=torch.zeros(2, 2 * roi[0], 2 * roi[1]),
        fine_grained_feats=torch.zeros(*rois, _FEW),
        coarse_feats=torch.zeros(2, classes, _FEW),
        # Anchors that a stage of cascade RPN refines, with 18 offsets each.
        offset_list=[
            torch.zeros(1, level.shape[-1] ** 2, 18) for level in maps
        ],
        # Mask heads: images and their positive samples.
        batch_data_samples=[DetDataSample(metainfo=image)],
        positive_infos=[
            InstanceData(
                coeffs=torch.zeros(1, known.get('num_protos') or 1),
                param_preds=torch.zeros(1, known.get('num_params') or 1),
                points=torch.zeros(1, 2),
                strides=torch.ones(1),
            )
        ],
    )
