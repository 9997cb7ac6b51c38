"""A trained quantized detector as an ONNX or OpenVINO file."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmgor.checkpoint import TRAINING_ONLY_PREFIXES

from .detections import NAMES, Detections
from .extras import require
from .fold import fold_norms
from .frozen import freeze
from .metadata import KEY, make_metadata, read_metadata, size_divisor
from .onnx_ops import OPSET, translations
from .storage import store_int4

BACKENDS = {'onnxruntime': '.onnx', 'openvino': '.xml'}
_MAX_SIDE = 4096


class Network(nn.Module):
    """Backbone, neck and head of a single-stage detector, from images to
    what the head gives, flattened.

    Args:
        detector (nn.Module): With ``bbox_head``.

    Raises:
        ValueError: If it is no single-stage detector, or has an operator
            that ONNX has not.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        if not hasattr(detector, 'bbox_head') or hasattr(detector, 'encoder'):
            raise ValueError(
                f'{type(detector).__name__} has stages that are not '
                'exported (a RoI head or a transformer); expected a '
                'single-stage detector with a dense bbox_head, such as '
                'RetinaNet, FCOS, ATSS, GFL, YOLOX, YOLOF, YOLOV3 or RTMDet.'
            )
        _check_operators(detector)
        self.detector = detector
        self.detections: nn.Module | None = None

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.outputs(images)
        if self.detections is not None:
            outputs = self.detections(outputs)
        return flatten(outputs)

    def outputs(self, images: Tensor) -> Any:
        """What the head gives, in its own structure."""
        detector: Any = self.detector
        return detector.bbox_head(detector.extract_feat(images))


def _check_operators(detector: nn.Module) -> None:
    unknown = {
        name: type(module).__name__
        for name, module in detector.named_modules()
        if type(module).__module__.startswith('mmcv.ops')
        and not name.startswith(TRAINING_ONLY_PREFIXES)
        and 'loss' not in name
    }
    if unknown:
        raise ValueError(
            f'mmcv operators without an ONNX form: {unknown}. Expected a '
            'detector without them; choose another backbone, neck or head.'
        )


def flatten(outputs: Any) -> list:
    """The tensors (or their names) in nested tuples and lists, in order."""
    if isinstance(outputs, (Tensor, str)):
        return [outputs]
    return [leaf for part in outputs for leaf in flatten(part)]


def name_outputs(outputs: Any, name: str = 'output') -> Any:
    """Names in the structure of ``outputs``: output_<position>_<level>."""
    if isinstance(outputs, Tensor):
        return name
    return [name_outputs(o, f'{name}_{i}') for i, o in enumerate(outputs)]


def export_detector(
    model: nn.Module,
    cfg: Config,
    path: str | Path,
    size: tuple[int, int],
    classes: tuple[str, ...],
    dynamic: bool = False,
    batch: int = 1,
    int4: bool = False,
    nms: bool = False,
) -> dict[str, Any]:
    """Write the integers of a trained detector to a file.

    Args:
        model (nn.Module): Detector with calibrated quantized layers.
        cfg (Config): Its config.
        path (str | Path): ``.onnx``, or ``.xml`` for OpenVINO.
        size (tuple[int, int]): Height and width of the padded images.
        classes (tuple[str, ...]): Class names in label order.
        dynamic (bool): Any multiple of the config's ``pad_size_divisor``
            (at least 32) as height and width, and any batch size.
        batch (int): Batch size of a file that is not dynamic.
        int4 (bool): Store weights of up to 4 bits two in a byte.
        nms (bool): Give boxes, scores and labels of one image instead of
            the head's outputs (see :class:`Detections`).

    Returns:
        dict: ``bytes`` of what was written, ``folded`` batch norms, and the
        file's ``metadata``.

    Raises:
        ValueError: If the model or ``size`` does not fit, or a layer was
            never calibrated.
        RuntimeError: If torch can't export the model.
    """
    path = Path(path)
    if path.suffix not in BACKENDS.values():
        raise ValueError(
            f'expected a file name ending in .onnx or .xml, got {path}.'
        )
    # Dynamic sides of no multiple of 32 would give levels of unequal halves.
    divisor = max(size_divisor(cfg), 32 if dynamic else 1)
    _check_size(size, divisor)
    network = Network(freeze(model)).eval()
    images = torch.zeros(2 if dynamic else batch, 3, *size)
    with torch.no_grad():
        outputs = network.outputs(images)
    names = name_outputs(outputs)
    if nms:
        if dynamic or batch != 1:
            raise ValueError(
                'nms in the graph expected a static file for one image, got '
                f'dynamic={dynamic}, batch={batch}.'
            )
        maps = [(o.shape[-2], o.shape[-1]) for o in outputs[0]]
        head: Any = network.detector.bbox_head
        network.detections = Detections(head, size, maps)
        names = NAMES
    program = _trace(network, images, names, divisor if dynamic else None)
    folded = _tidy(program.model, int4)
    shape = (None, None, None) if dynamic else (batch, *size)
    metadata = make_metadata(cfg, model, classes, shape, divisor, names, nms)
    written = _save(program.model, metadata, path)
    return dict(bytes=written, folded=folded, metadata=metadata)


def _check_size(size: tuple[int, int], divisor: int) -> None:
    fits = all(divisor <= side <= _MAX_SIDE for side in size)
    if not fits or any(side % divisor for side in size):
        raise ValueError(
            f'size (height, width) must be multiples of {divisor} (the '
            f"config's pad_size_divisor) up to {_MAX_SIDE}, got "
            f'{tuple(size)}.'
        )


def _trace(
    network: Network, images: Tensor, names: Any, unit: int | None
) -> Any:
    require('onnx')
    require('onnxscript')
    shapes: Any = None
    if unit is not None:
        top = _MAX_SIDE // unit
        height = unit * torch.export.Dim('height_units', min=1, max=top)
        width = unit * torch.export.Dim('width_units', min=1, max=top)
        shapes = {
            'images': {0: torch.export.Dim('batch'), 2: height, 3: width}
        }
    try:
        return torch.onnx.export(
            network,
            (images,),
            input_names=['images'],
            output_names=flatten(names),
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=shapes,
            custom_translation_table=translations(),
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RuntimeError(
            'torch could not export the network; its report names the '
            f'operator and the line of the model: {error}'
        ) from error


def _tidy(model: Any, int4: bool) -> int:
    """Fold batch norms, store integers tightly, drop what nothing uses."""
    passes = require('onnx_ir.passes.common')
    folded = fold_norms(model.graph)
    if int4:
        store_int4(model.graph)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.CheckerPass(),
    ):
        step(model)
    return folded


def to_openvino(source: Path, target: Path) -> None:
    """Write an exported ``.onnx`` file as OpenVINO IR, metadata included.

    Args:
        source (Path): From :func:`export_detector`.
        target (Path): ``.xml``; its ``.bin`` is written beside it.
    """
    openvino = require('openvino')
    converted = openvino.convert_model(source)
    converted.set_rt_info(json.dumps(read_metadata(source)), [KEY])
    openvino.save_model(converted, target, compress_to_fp16=False)


def _save(model: Any, metadata: dict[str, Any], path: Path) -> int:
    """Write the file(s); give their size. Nothing half-written stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model.metadata_props[KEY] = json.dumps(metadata)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / f'{path.stem}.onnx'
        require('onnx_ir').save(model, source)
        if path.suffix == '.xml':
            to_openvino(source, source.with_suffix('.xml'))
            source.unlink()
        parts = sorted(Path(folder).iterdir())
        written = sum(part.stat().st_size for part in parts)
        for part in parts:
            os.replace(part, path.parent / part.name)
    return written
