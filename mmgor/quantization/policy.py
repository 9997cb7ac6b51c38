"""The bit policy: how many bits each layer's weight and input get."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from mmgor.io.config_values import (
    boolean,
    choice,
    integer,
    known_keys,
    mapping,
    nearest,
    text,
)
from mmgor.quantization.quantizers.base import (
    FLOAT_HINT,
    MAX_BITS,
    MIN_BITS,
    BaseQuantizer,
)
from mmgor.registry import MODELS, find
from mmgor.targets import find_target

#: Which tensors are rounded: the inputs of layers, or every tensor.
LAYOUTS = ('inputs', 'all')
#: For error messages: what to write where not every tensor can be rounded.
ONLY_INPUTS = "tensors='inputs', without a target that needs 'all'"

# How the names of prediction layers end in mmdet's heads (retina_cls, gfl_reg,
# conv_centerness, multi_level_conv_obj.0, convs_pred.0, fc_cls,
# cls_branches.0 ...).
PREDICTION_ENDINGS = (
    '_cls',
    '_reg',
    '_reg_refine',
    '_obj',
    '_iou',
    '_pred',
    '_score',
    '_centerness',
    '_branches',
)
# Set by the layer, never by the config.
_OWN_KEYS = {
    'bits',
    'num_scales',
    'per_channel',
    'for_weight',
    'channels',
    'symmetric',
}
_NONE: Mapping[str, str] = MappingProxyType({})
_PER_CHANNEL_INPUTS = ('LSQQuantizer', 'LSQPlusQuantizer')


@dataclass(frozen=True)
class LayerBits:
    """Bits of one layer's weight and input."""

    w_bits: int
    a_bits: int


@dataclass(frozen=True)
class QuantPolicy:
    """The bit policy of one wrapped module (``quant=dict(...)``).

    Args:
        w_bits (int): Weight bits, 2 to 8.
        a_bits (int): Input (activation) bits, 2 to 8.
        first_last_bits (int): Weight and input bits of the backbone's first
            layer and of the head's prediction layers.
        weight_quantizer (dict): Registered quantizer of weights.
        input_quantizer (dict): Registered quantizer of inputs.
        per_channel (bool): One weight scale per output channel, or one per
            layer.
        per_channel_depthwise (bool): One input scale per channel in depthwise
            convolutions. Their channels do not mix, so each input scale folds
            exactly into the weight's scale.
        overrides (dict): Maps a glob pattern on a layer's path inside the
            module to ``dict(w_bits=..., a_bits=...)``, or to None to keep the
            layer in float. Later patterns win, and they win over
            ``first_last_bits``. Layers that tell a deformable layer where to
            sample stay in float, unless a pattern matches no other layers:
            ``'*.conv_offset'``.
        tensors (str): 'inputs': the inputs of layers are rounded. 'all':
            every tensor is rounded: the operands of sums and products, what
            concatenations, resizes and poolings read, the outputs of
            sigmoids, and what the module returns. Layers and operations that
            read the same tensor share its grid. Default: what the target
            needs, or 'inputs'.
        tensor_bits (int): With ``tensors='all'``, the least bits of what sums,
            products and activations read.
        target (str, optional): Where the exported file will run, such as
            'litert' (:data:`mmgor.targets.TARGETS`). Sets what the target
            needs and refuses what it can't run.

    Raises:
        ValueError: If a key or quantizer is unknown, or bits are outside of 2
            to 8.
    """

    w_bits: int = 4
    a_bits: int = 4
    first_last_bits: int = 8
    weight_quantizer: dict = field(
        default_factory=lambda: dict(type='LSQQuantizer')
    )
    input_quantizer: dict = field(
        default_factory=lambda: dict(type='LSQQuantizer')
    )
    per_channel: bool = True
    per_channel_depthwise: bool = False
    overrides: dict = field(default_factory=dict)
    tensors: str = ''
    tensor_bits: int = MAX_BITS
    target: str | None = None

    def __post_init__(self) -> None:
        for name in ('w_bits', 'a_bits', 'first_last_bits', 'tensor_bits'):
            _check_bits(name, getattr(self, name))
        for name in ('weight_quantizer', 'input_quantizer'):
            _check_quantizer(name, getattr(self, name))
        for name in ('per_channel', 'per_channel_depthwise'):
            boolean(name, getattr(self, name))
        kind = find(self.input_quantizer['type']).__name__
        if self.per_channel_depthwise and kind not in _PER_CHANNEL_INPUTS:
            raise ValueError(
                'per_channel_depthwise expected an input_quantizer of one of '
                f'the types {_PER_CHANNEL_INPUTS}, got {kind!r}.'
            )
        if not isinstance(self.tensors, str) or self.tensors:
            choice('tensors', self.tensors, LAYOUTS)
        self._take_target()
        if self.tensors != 'all' and self.tensor_bits != MAX_BITS:
            raise ValueError(
                f'tensor_bits={self.tensor_bits} is for what sums, products '
                'and activations read, which is rounded only with '
                f"tensors='all', got tensors={self.tensors!r}. Drop the key, "
                'or set the other.'
            )
        if self.tensors == 'all' and self.per_channel_depthwise:
            raise ValueError(
                "tensors='all' has one scale per tensor, which is what "
                'integer runtimes have; got per_channel_depthwise=True. Drop '
                'one of the two.'
            )
        example = 'overrides={"layer1.*": dict(w_bits=8)}'
        overrides = mapping('overrides', self.overrides, example)
        for pattern, bits in overrides.items():
            _check_override(pattern, bits)

    def _take_target(self) -> None:
        """Fill in what the target needs, and refuse what it can't run."""
        if self.target is None:
            object.__setattr__(self, 'tensors', self.tensors or LAYOUTS[0])
            return
        target = find_target(self.target)
        if self.tensors not in ('', target.tensors):
            raise ValueError(
                f'target={self.target!r} needs tensors={target.tensors!r}, '
                f'got tensors={self.tensors!r}. Drop the key.'
            )
        object.__setattr__(self, 'tensors', target.tensors)
        if self.per_channel_depthwise and not target.per_channel_inputs:
            raise ValueError(
                f'target={self.target!r} has one scale per activation, got '
                'per_channel_depthwise=True. Drop the key.'
            )
        kind = find(self.input_quantizer['type'])
        if target.symmetric_inputs and kind.asymmetric:
            raise ValueError(
                f'target={self.target!r} has no zero points, got an '
                f'input_quantizer with an offset: {kind.__name__}. Expected '
                "for example input_quantizer=dict(type='LSQQuantizer')."
            )

    @property
    def symmetric(self) -> bool:
        """Whether inputs have to fit int8 with zero point 0."""
        return bool(self.target and find_target(self.target).symmetric_inputs)

    @property
    def fuse_silu(self) -> bool:
        """Whether what SiLU reads is not rounded."""
        return bool(self.target and find_target(self.target).fuse_silu)

    def input_config(self, bits: int, slots: int) -> dict:
        """Config of an activation quantizer."""
        return dict(
            self.input_quantizer,
            bits=bits,
            num_scales=slots,
            symmetric=self.symmetric,
        )

    @classmethod
    def from_config(cls, quant: Any) -> 'QuantPolicy':
        """Build a policy from a ``quant`` dict; None gives the defaults."""
        example = 'quant=dict(w_bits=4, a_bits=4)'
        given = {} if quant is None else mapping('quant', quant, example)
        known_keys('quant', given, cls.__dataclass_fields__)
        return cls(**given)

    def assign(
        self,
        names: list[str],
        edge_names: set[str],
        in_float: Mapping[str, str] = _NONE,
    ) -> dict[str, LayerBits | None]:
        """Decide the bits of every layer.

        Args:
            names (list[str]): Paths of all layers that can be quantized.
            edge_names (set[str]): Paths that get ``first_last_bits``.
            in_float (Mapping[str, str], optional): Maps the paths of layers
                that stay in float to the reason. They are the layers that
                can't be quantized and those of ``names`` that should not be.
                A pattern changes the latter only if it matches no other
                layer.

        Returns:
            dict[str, LayerBits | None]: Maps every path of ``names`` to its
            bits, or to None if the layer stays in float.

        Raises:
            ValueError: If a pattern of ``overrides`` matches no layer, or
                gives bits to layers that can't be quantized.
        """
        edge = LayerBits(self.first_last_bits, self.first_last_bits)
        inner = LayerBits(self.w_bits, self.a_bits)
        assigned: dict[str, LayerBits | None] = {
            name: edge if name in edge_names else inner for name in names
        }
        assigned.update({n: None for n in names if n in in_float})
        for pattern, bits in self.overrides.items():
            matched = [n for n in names if fnmatchcase(n, pattern)]
            if not matched:
                _check_meant(pattern, bits, names, in_float)
            usual = [n for n in matched if n not in in_float]
            for name in usual or matched:
                base = assigned[name] or inner
                assigned[name] = (
                    bits
                    if bits is None
                    else LayerBits(
                        bits.get('w_bits', base.w_bits),
                        bits.get('a_bits', base.a_bits),
                    )
                )
        return assigned

    def keeps_float(self, name: str) -> bool:
        """Whether a pattern of ``overrides`` keeps a layer in float."""
        return any(
            bits is None and fnmatchcase(name, pattern)
            for pattern, bits in self.overrides.items()
        )


def _check_meant(
    pattern: str,
    bits: dict | None,
    names: list[str],
    in_float: Mapping[str, str],
) -> None:
    """Raise for a pattern that matches no layer of ``names``, unless it
    keeps in float what is in float anyway."""
    left = [n for n in in_float if fnmatchcase(n, pattern)]
    if not left:
        raise ValueError(
            f'overrides pattern {pattern!r} matches no layer; the layers are '
            f'{names}.'
        )
    if bits is not None:
        raise ValueError(
            f'overrides pattern {pattern!r} gives bits to {left[0]}, which '
            f'stays in float: {in_float[left[0]]}. Expected a pattern that '
            f'matches a layer that can be quantized: {names}.'
        )


def is_prediction_layer(name: str) -> bool:
    """Whether a head's layer predicts, judged by mmdet's naming.

    Example:
        >>> is_prediction_layer('retina_cls')
        True
        >>> is_prediction_layer('multi_level_conv_obj.0')
        True
        >>> is_prediction_layer('cls_convs.0.conv')
        False
    """
    words = [word for word in name.split('.') if not word.isdigit()]
    return bool(words) and words[-1].endswith(PREDICTION_ENDINGS)


def prediction_layers(names: list[str]) -> set[str]:
    """The layers of a head that predict, judged by their names.

    DETR heads have one branch of several layers per decoder layer
    (``reg_branches.<decoder layer>.<position>``). Only the last layer of a
    branch predicts.

    Args:
        names (list[str]): Paths of all layers, in order.

    Example:
        >>> prediction_layers(['reg_branches.0.0', 'reg_branches.0.2'])
        {'reg_branches.0.2'}
    """
    last = {}
    for name in filter(is_prediction_layer, names):
        *_, parent, own = ['', *name.split('.')]
        in_branch = own.isdigit() and parent.isdigit()
        last[name.rpartition('.')[0] if in_branch else name] = name
    return set(last.values())


def _check_bits(name: str, bits: Any) -> None:
    integer(name, bits, MIN_BITS, MAX_BITS, FLOAT_HINT)


def _check_override(pattern: Any, bits: Any) -> None:
    name = (
        f'overrides[{text("a pattern of overrides", pattern, "layer1.*")!r}]'
    )
    if bits is None:
        return
    known = list(LayerBits.__dataclass_fields__)
    if not (isinstance(bits, dict) and bits and set(bits) <= set(known)):
        hint = nearest(bits, known) if isinstance(bits, dict) else ''
        raise ValueError(
            f"{name} must be None or a dict with 'w_bits' and/or 'a_bits', "
            f'got {bits!r}{hint}.'
        )
    for key, value in bits.items():
        _check_bits(f'{name}[{key!r}]', value)


def _check_quantizer(name: str, cfg: Any) -> None:
    kind = cfg.get('type') if isinstance(cfg, dict) else cfg
    found = find(kind) if isinstance(cfg, dict) else None
    if not (isinstance(found, type) and issubclass(found, BaseQuantizer)):
        known = sorted(
            n for n in MODELS.module_dict if n.endswith('Quantizer')
        )
        raise ValueError(
            f'unknown {name} {kind!r}; expected dict(type=...) '
            f'with one of {known}{nearest([kind], known)}.'
        )
    taken = sorted(_OWN_KEYS & set(cfg))
    if taken:
        raise ValueError(
            f'{name} must not set {taken}: bits come from w_bits, a_bits and '
            'overrides, scales from per_channel.'
        )
