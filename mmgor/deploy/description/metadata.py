"""What an exported file says about itself."""

from collections.abc import Collection
from math import lcm
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmgor.deploy.loading import test_pipeline
from mmgor.deploy.optional_imports import require
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.checkpoint import weights_digest
from mmgor.io.config_reader import model_config, named
from mmgor.quantization import quantized_layers
from mmgor.version import __version__

from .checksum import check_ir, check_onnx, names_files
from .metadata_check import check_description, check_metadata
from .plain_json import parse_json

#: Key in ONNX metadata_props and in OpenVINO's rt_info.
KEY = 'mmgor'
_TUPLE = '__tuple__'
# Of training, or with a path of the machine that trained.
_LEFT_OUT = (
    'teachers',
    'kd_heads',
    'gor_weighting',
    'train_cfg',
    'init_cfg',
    'pretrained',
    'backend_args',
)
# Sides of no multiple of it would give levels of unequal halves.
_DYNAMIC_DIVISOR = 32
#: Rises when a reader of the former would misread the new.
FORMAT = 1


def make_metadata(
    cfg: Config,
    model: nn.Module,
    classes: tuple[str, ...],
    image_shape: tuple[int | None, ...],
    divisor: int,
    outputs: Any,
    nms: bool = False,
) -> dict[str, Any]:
    """Describe an export.

    Args:
        cfg (Config): Complete config of the student.
        model (nn.Module): The student.
        classes (tuple[str, ...]): Class names in label order.
        image_shape (tuple): Batch, height and width; None where dynamic.
        divisor (int): What dynamic sides are a multiple of.
        outputs (list): Names of the graph's outputs, nested as the head
            gives them.
        nms (bool): Whether they are detections.

    Returns:
        dict: Can be written as JSON.

    Raises:
        ValueError: If the config can't.
    """
    batch, height, width = image_shape
    config = _tag(named(_needed(cfg)))
    model_cfg = config['model']
    return dict(
        format=FORMAT,
        version=__version__,
        model=model_cfg.get('detector', model_cfg['type']),
        classes=list(classes),
        input=dict(
            name='images',
            batch=batch,
            channels=image_channels(model) or COLOUR,
            height=height,
            width=width,
            divisor=divisor,
        ),
        preprocessing=_untag(model_cfg.get('data_preprocessor') or {}),
        outputs=outputs,
        nms=nms,
        weights_sha256=weights_digest(model.state_dict()),
        quantization=[
            dict(
                name=name,
                w_bits=layer.weight_quantizer.bits,
                a_bits=layer.input_quantizer.bits,
            )
            for name, layer in quantized_layers(model).items()
        ],
        config=config,
    )


def exported_config(metadata: dict[str, Any]) -> Config:
    """Model (the student alone) and test pipeline that a file came from.

    Args:
        metadata (dict): From :func:`read_metadata`.

    Returns:
        Config: As it stands in the file. Nothing of it may be built before
        ``allowed.check_allowed`` has seen it.

    Raises:
        ValueError: If the file does not tell all of it.
    """
    check_description(metadata)
    return Config(_untag(metadata['config']))


def _needed(cfg: Config) -> dict[str, Any]:
    """What inference needs: no teachers, no paths, nothing of training."""
    pipeline = test_pipeline(cfg)
    return dict(
        default_scope=cfg.get('default_scope') or 'mmdet',
        model=without(model_config(cfg), _LEFT_OUT),
        test_dataloader=dict(
            dataset=dict(pipeline=without(pipeline, _LEFT_OUT))
        ),
    )


def without(value: Any, keys: Collection[str]) -> Any:
    """Nested dicts, lists and tuples without some keys, at any depth."""
    if isinstance(value, dict):
        return {k: without(v, keys) for k, v in value.items() if k not in keys}
    if isinstance(value, (list, tuple)):
        return type(value)(without(item, keys) for item in value)
    return value


def _tag(value: Any) -> Any:
    """For JSON, which has no tuples; mmcv tells them from lists."""
    if isinstance(value, dict):
        return {key: _tag(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [_tag(item) for item in value]}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f'the config has {value!r}, which an exported file can not hold; '
        'expected names, numbers, lists and dicts. Write names of registered '
        "functions, such as type='nms', instead of the functions."
    )


def _untag(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TUPLE} and isinstance(value[_TUPLE], list):
            return tuple(_untag(item) for item in value[_TUPLE])
        return {key: _untag(item) for key, item in value.items()}
    return [_untag(v) for v in value] if isinstance(value, list) else value


def size_divisor(cfg: Config, dynamic: bool = False) -> int:
    """What the sides of a batch are padded to a multiple of.

    Args:
        cfg (Config): With ``pad_size_divisor`` in its ``data_preprocessor``.
        dynamic (bool): For a file of dynamic sizes: also a multiple of 32.
    """
    preprocessing = model_config(cfg).get('data_preprocessor') or {}
    divisor = int(preprocessing.get('pad_size_divisor', 1))
    return lcm(divisor, _DYNAMIC_DIVISOR if dynamic else 1)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The description inside of an exported file.

    Args:
        path (str | Path): ``.onnx`` file, or ``.xml`` with its ``.bin``.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it can't be read, mmgor did not write it, a newer
            version did, or the ``.onnx`` or ``.bin`` has changed since.
    """
    path = Path(path)
    if path.suffix not in ('.onnx', '.xml'):
        raise ValueError(
            f'expected a .onnx or .xml file of tools/export.py, got {path}.'
        )
    if not path.is_file():
        raise FileNotFoundError(
            f'exported model not found: {path}; write it with '
            f'python tools/export.py CONFIG CHECKPOINT --out {path}.'
        )
    text = _onnx_text(path) if path.suffix == '.onnx' else _ir_text(path)
    if text is None:
        raise ValueError(
            f'{path} has no mmgor metadata; expected a file that '
            'tools/export.py wrote, got one of another program.'
        )
    try:
        metadata: dict[str, Any] = parse_json(text)
        newer = metadata['format'] > FORMAT
        if not newer:
            check_metadata(metadata)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} has damaged mmgor metadata ({error!r}); export it again.'
        ) from error
    if newer:
        raise ValueError(
            f'{path} has metadata of format {metadata["format"]}, written by '
            f'mmgor {metadata.get("version")}; this is mmgor {__version__}, '
            f'which reads up to {FORMAT}. Upgrade mmgor.'
        )
    return metadata


def _onnx_text(path: Path) -> str | None:
    onnx = require('onnx')
    content = path.read_bytes()
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's own, of changing names
        raise ValueError(
            f'{path} could not be read as ONNX ({error}); the file is '
            'truncated or of another kind. Export it again.'
        ) from error
    if names_files(model):
        raise ValueError(
            f'{path} has weights in other files; expected all of them inside, '
            'as tools/export.py writes it.'
        )
    properties = {p.key: p.value for p in model.metadata_props}
    check_onnx(path, content, properties)
    return properties.get(KEY)


def _ir_text(path: Path) -> str | None:
    core = require('openvino').Core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f'{path} could not be read as OpenVINO IR ({error}); the file or '
            'its .bin is missing or truncated. Export it again.'
        ) from error
    if not model.has_rt_info([KEY]):
        return None
    check_ir(path, model)
    return str(model.get_rt_info([KEY]).value)
