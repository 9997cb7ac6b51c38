"""A trained quantized detector as an ONNX or OpenVINO file."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmgor.deploy.description.metadata import make_metadata, size_divisor
from mmgor.deploy.description.metadata_check import MAX_SIDE, check_metadata
from mmgor.deploy.head_outputs import flatten, name_outputs
from mmgor.deploy.input_size import configured_pipeline
from mmgor.deploy.optional_imports import require
from mmgor.deploy.runtime.detector import detector_configs
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.config_values import boolean, integer, integers

from .batch_norm_folding import fold_norms
from .compiled_ops import check_calls, check_modules
from .frozen import freeze
from .graph_nms import NAMES, GraphNMS
from .int4_weights import use_int4_weights
from .onnx_ops import OPSET, translations
from .saving import save_exported
from .shape_check import check_shapes
from .swin_windows import make_swin_traceable

BACKENDS = {'onnxruntime': '.onnx', 'openvino': '.xml'}


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
        more = hasattr(detector, 'encoder') or hasattr(detector, 'mask_head')
        if more or not hasattr(detector, 'bbox_head'):
            raise ValueError(
                f'{type(detector).__name__} has stages that are not '
                'exported (a RoI head, a mask head or a transformer); '
                'expected a single-stage detector with a dense bbox_head, '
                'such as RetinaNet, FCOS, ATSS, GFL, YOLOX, YOLOF, YOLOV3 or '
                'RTMDet.'
            )
        check_modules(detector)
        self.detector = detector
        self.graph_nms: nn.Module | None = None

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.outputs(images)
        if self.graph_nms is not None:
            outputs = self.graph_nms(outputs)
        return flatten(outputs)

    def outputs(self, images: Tensor) -> Any:
        """What the head gives, in its own structure."""
        detector: Any = self.detector
        return detector.bbox_head(detector.extract_feat(images))


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
        dynamic (bool): Any multiple of 32 and of the config's
            ``pad_size_divisor`` as height and width, and any batch size.
        batch (int): Batch size of a file that is not dynamic.
        int4 (bool): Store weights of up to 4 bits two in a byte.
        nms (bool): Give boxes, scores and labels of one image instead of
            the head's outputs (see :class:`GraphNMS`).

    Returns:
        dict: ``bytes`` of what was written, ``folded`` batch norms, and the
        file's ``metadata``.

    Raises:
        ValueError: If the model, ``size``, ``batch`` or ``classes`` do not
            fit, a layer was never calibrated, a weight is not finite, the
            config can't be written as JSON, or a dynamic graph is wrong at
            another size.
        RuntimeError: If torch can't export the model.
    """
    path = Path(path)
    if path.suffix not in BACKENDS.values():
        raise ValueError(
            f'expected a file name ending in .onnx or .xml, got {path}.'
        )
    divisor = size_divisor(cfg, dynamic)
    _check_size(size, divisor, dynamic)
    batch = integer('batch', batch, 1)
    for name, value in dict(dynamic=dynamic, int4=int4, nms=nms).items():
        boolean(name, value)
    _check_config(cfg, model, classes)
    network = Network(freeze(model)).eval()
    make_swin_traceable(network)
    channels = image_channels(model) or COLOUR
    images = torch.zeros(2 if dynamic else batch, channels, *size)
    with torch.no_grad():
        outputs = check_calls(lambda: network.outputs(images))
    names = name_outputs(outputs)
    if nms:
        if dynamic or batch != 1:
            raise ValueError(
                'nms in the graph expected a static file for one image, got '
                f'dynamic={dynamic}, batch={batch}.'
            )
        head: Any = network.detector.bbox_head
        network.graph_nms = GraphNMS(head, size, outputs)
        names = NAMES
    shape = (None, None, None) if dynamic else (batch, *size)
    metadata = make_metadata(cfg, model, classes, shape, divisor, names, nms)
    _check_description(metadata, path)
    program = _trace(network, images, names, divisor if dynamic else None)
    folded = _optimize(program.model, int4)
    if dynamic:
        check_shapes(program.model, network, metadata, size, path)
    written = save_exported(program.model, metadata, path)
    return dict(bytes=written, folded=folded, metadata=metadata)


def _check_size(size: tuple[int, int], divisor: int, dynamic: bool) -> None:
    integers('size', size, 0, '(640, 640), its height and width', 2)
    fits = all(divisor <= side <= MAX_SIDE for side in size)
    if not fits or any(side % divisor for side in size):
        source = "the config's pad_size_divisor"
        if dynamic:
            source += ', and 32 for dynamic sizes'
        raise ValueError(
            f'size (height, width) must be multiples of {divisor} ({source}) '
            f'up to {MAX_SIDE}, got {tuple(size)}.'
        )


def _check_config(
    cfg: Config, model: nn.Module, classes: tuple[str, ...]
) -> None:
    count = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    if count is not None and len(classes) != count:
        raise ValueError(
            f'expected the names of {count} classes, as many as '
            f'bbox_head.num_classes, got {list(classes)}.'
        )
    if not configured_pipeline(cfg):
        warnings.warn(
            'no test pipeline in the config (test_dataloader.dataset.'
            'pipeline): Detector and tools/detect.py will refuse the file.',
            stacklevel=3,
        )


def _check_description(metadata: dict[str, Any], path: Path) -> None:
    """As the file's readers will look at it."""
    said = json.loads(json.dumps(metadata))
    check_metadata(said)
    if not said['config']['test_dataloader']['dataset']['pipeline']:
        return  # told already
    try:
        detector_configs(said, path)
    except ValueError as error:
        warnings.warn(
            f'Detector and tools/detect.py will refuse the file: {error}',
            stacklevel=3,
        )


def _trace(
    network: Network, images: Tensor, names: Any, unit: int | None
) -> Any:
    require('onnx')
    require('onnxscript')
    shapes: Any = None
    if unit is not None:
        top = MAX_SIDE // unit
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


def _optimize(model: Any, int4: bool) -> int:
    """Fold batch norms, store integers tightly, drop what nothing uses."""
    passes = require('onnx_ir.passes.common')
    folded = fold_norms(model.graph)
    if int4:
        use_int4_weights(model.graph)
    for step in (
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.ClearMetadataAndDocStringPass(),
        passes.CheckerPass(),
    ):
        step(model)
    return folded
