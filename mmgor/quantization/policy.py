"""Which layer gets how many bits."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mmgor.registry import MODELS

# The last part of a prediction layer's name in mmdet's heads (retina_cls,
# gfl_reg, conv_centerness, multi_level_conv_obj.0, convs_pred.0, fc_cls,
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
# What the layers decide, not the config.
_OWN_KEYS = {'bits', 'num_scales', 'per_channel', 'for_weight', 'channels'}
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
        first_last_bits (int): Both bits of the backbone's first layer and of
            the head's prediction layers.
        weight_quantizer (dict): Registered quantizer of weights.
        input_quantizer (dict): Registered quantizer of inputs.
        per_channel (bool): One weight scale an output channel, or one a
            layer.
        per_channel_depthwise (bool): One input scale a channel in depthwise
            convolutions. A channel of theirs meets no other, so that its
            scale folds into the weight's exactly.
        overrides (dict): Glob on the layer's path inside the module ->
            ``dict(w_bits=..., a_bits=...)``, or None to keep it in float.
            Later patterns win. They also win over ``first_last_bits``.

    Raises:
        ValueError: On an unknown key or quantizer, and on bits outside 2..8.
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

    def __post_init__(self) -> None:
        for name in ('w_bits', 'a_bits', 'first_last_bits'):
            _check_bits(name, getattr(self, name))
        for name in ('weight_quantizer', 'input_quantizer'):
            _check_quantizer(name, getattr(self, name))
        for name in ('per_channel', 'per_channel_depthwise'):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(
                    f'{name} must be True or False, got {value!r}.'
                )
        kind = self.input_quantizer['type']
        if self.per_channel_depthwise and kind not in _PER_CHANNEL_INPUTS:
            raise ValueError(
                'per_channel_depthwise expected an input_quantizer of one of '
                f'the types {_PER_CHANNEL_INPUTS}, got {kind!r}.'
            )
        if not isinstance(self.overrides, dict):
            raise ValueError(
                'overrides must be a dict of layer patterns, got '
                f'{self.overrides!r}; expected e.g. '
                'overrides={"layer1.*": dict(w_bits=8)}.'
            )
        for pattern, bits in self.overrides.items():
            if bits is None:
                continue
            known = isinstance(bits, dict) and set(bits) <= {
                'w_bits',
                'a_bits',
            }
            if not (known and bits):
                raise ValueError(
                    f'overrides[{pattern!r}] must be None or a dict with '
                    f"'w_bits' and/or 'a_bits', got {bits!r}."
                )
            for name, value in bits.items():
                _check_bits(f'overrides[{pattern!r}][{name!r}]', value)

    @classmethod
    def from_config(cls, quant: Any) -> 'QuantPolicy':
        """Build from a config's ``quant`` dict; None gives the defaults."""
        if quant is not None and not isinstance(quant, dict):
            raise ValueError(
                f'quant must be a dict, got {quant!r}; expected e.g. '
                'quant=dict(w_bits=4, a_bits=4).'
            )
        quant = dict(quant or {})
        unknown = sorted(set(quant) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f'unknown key(s) {unknown} in quant; expected some of '
                f'{sorted(cls.__dataclass_fields__)}.'
            )
        return cls(**quant)

    def assign(
        self, names: list[str], edge_names: set[str]
    ) -> dict[str, LayerBits | None]:
        """Decide every layer's bits.

        Args:
            names (list[str]): Paths of all layers in the module.
            edge_names (set[str]): Those that get ``first_last_bits``.

        Returns:
            dict[str, LayerBits | None]: None keeps the layer in float.

        Raises:
            ValueError: If a pattern of ``overrides`` matches no layer.
        """
        edge = LayerBits(self.first_last_bits, self.first_last_bits)
        inner = LayerBits(self.w_bits, self.a_bits)
        assigned: dict[str, LayerBits | None] = {
            name: edge if name in edge_names else inner for name in names
        }
        for pattern, bits in self.overrides.items():
            matched = [n for n in names if fnmatchcase(n, pattern)]
            if not matched:
                raise ValueError(
                    f'overrides pattern {pattern!r} matches no layer; the '
                    f'layers are {names}.'
                )
            for name in matched:
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


def is_prediction_layer(name: str) -> bool:
    """Whether a head's layer is one of its last, by mmdet's naming.

    Example:
        >>> is_prediction_layer('retina_cls')
        True
        >>> is_prediction_layer('multi_level_conv_obj.0')
        True
        >>> is_prediction_layer('cls_convs.0.conv')
        False
    """
    parts = [part for part in name.split('.') if not part.isdigit()]
    return bool(parts) and parts[-1].endswith(PREDICTION_ENDINGS)


def prediction_layers(names: list[str]) -> set[str]:
    """Those of a head's layers that predict.

    Of a branch of several layers, which DETR heads keep one a decoder layer
    (``reg_branches.<decoder layer>.<position>``), only the last predicts.

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
    if (
        isinstance(bits, bool)
        or not isinstance(bits, int)
        or not 2 <= bits <= 8
    ):
        raise ValueError(
            f'{name} must be an integer from 2 to 8, got {bits!r}. To keep '
            'a layer in float, write overrides={"<layer>": None}.'
        )


def _check_quantizer(name: str, cfg: Any) -> None:
    known = sorted(n for n in MODELS.module_dict if n.endswith('Quantizer'))
    kind = cfg.get('type') if isinstance(cfg, dict) else cfg
    if not isinstance(cfg, dict) or kind not in known:
        raise ValueError(
            f'unknown {name} {kind!r}; expected dict(type=...) '
            f'with one of {known}.'
        )
    taken = sorted(_OWN_KEYS & set(cfg))
    if taken:
        raise ValueError(
            f'{name} must not set {taken}: bits come from w_bits, a_bits and '
            'overrides, scales from per_channel.'
        )
