"""``export_detector``: writes a trained detector to a file.

The steps: choose the target (``target_choice``), replace the quantizers by
their integers (``frozen``), describe the file, and hand all of that to the
writer of its format, such as ``onnx_writer``.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmgor.deploy.description.metadata import make_metadata
from mmgor.deploy.description.metadata_check import MAX_SIDE, check_metadata
from mmgor.deploy.executorch.writer import write_executorch
from mmgor.deploy.head_outputs import flatten
from mmgor.deploy.input_size import configured_pipeline, size_divisor
from mmgor.deploy.litert.writer import write_litert
from mmgor.deploy.ncnn.writer import write_ncnn
from mmgor.deploy.parts import parts_of
from mmgor.deploy.runtime.detector import detector_configs
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.class_names import count_classes
from mmgor.io.config_values import boolean, integer, integers
from mmgor.quantization import quantized_layers
from mmgor.targets import TARGETS

from .compiled_ops import check_calls
from .frozen import check_calibrated, freeze
from .graph_nms import NAMES, GraphNMS
from .job import Job
from .network import Network
from .onnx_writer import write_onnx
from .swin_windows import make_swin_traceable
from .target_choice import check_grids, choose_target

BACKENDS = {'onnxruntime': '.onnx', 'openvino': '.xml'}
#: Writes the file of each suffix.
WRITERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    '.onnx': write_onnx,
    '.xml': write_onnx,
    '.param': write_ncnn,
    '.pte': write_executorch,
    '.tflite': write_litert,
}
# Formats that may have dynamic sizes, and NMS in the graph.
_FLEXIBLE = ('.onnx', '.xml')
# Formats with the same file of weights beside them.
_WITH_BIN = {'.xml': '.param', '.param': '.xml'}


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
    target: str | None = None,
) -> dict[str, Any]:
    """Export a trained detector with integer weights to a file.

    Args:
        model (nn.Module): Detector with calibrated quantized layers.
        cfg (Config): Its config.
        path (str | Path): ``.onnx`` file, ``.xml`` for OpenVINO, ``.tflite``
            for LiteRT, ``.param`` for ncnn or ``.pte`` for ExecuTorch. The
            weights of ``.xml`` and ``.param`` are written beside them, as
            ``.bin``.
        size (tuple[int, int]): Height and width of the padded images, in
            pixels.
        classes (tuple[str, ...]): Class names in label order.
        dynamic (bool): Let the file take any batch size, and any height and
            width that are multiples of 32 and of the config's
            ``pad_size_divisor``. Only ``.onnx`` and ``.xml`` can.
        batch (int): Batch size of a file that is not dynamic.
        int4 (bool): Write weights of up to 4 bits as int4.
        nms (bool): Let the graph give boxes, scores and labels of one image
            instead of the head's outputs (see :class:`.GraphNMS`). Only
            ``.onnx`` and ``.xml`` can.
        target (str, optional): Name of the runtime that the file is for, a
            key of ``mmgor.targets.TARGETS``. By default that of the config's
            ``quant`` (see :func:`.choose_target`).

    Returns:
        dict: ``bytes`` (size of the file), ``folded`` (number of folded batch
        norms) and ``metadata`` of the file.

    Raises:
        ValueError: If the model, ``size``, ``batch`` or ``classes`` do not
            fit; if a layer was never calibrated or a weight is not finite;
            if JSON can't hold the config; if a dynamic graph is wrong at
            another size; if the format can't have ``dynamic``, ``nms`` or
            ``batch``; if another file has its weights under the name of the
            ``.bin``; or if the target can't have the file.
        RuntimeError: If torch or litert-torch can't export the model.
        ImportError: If a package of the format is not installed.
    """
    path = Path(path)
    batch = integer('batch', batch, 1)
    _check_options(path, batch, dynamic, int4, nms)
    chosen = choose_target(target, cfg, path, int4)
    divisor = size_divisor(cfg, dynamic)
    _check_size(size, divisor, dynamic)
    _check_config(cfg, model, classes)
    parts = parts_of(model)
    if nms and parts.rest:
        raise ValueError(
            f'nms=True expected a single-stage detector, got '
            f'{type(model).__name__}: {parts.describe(model)}. Leave out '
            '--nms (nms=False).'
        )
    check_calibrated(model)
    written = parts.of(model)
    if not quantized_layers(written):
        raise ValueError(
            'no part of the file is quantized: '
            f'{parts.describe(model)}. Expected a config with QuantBackbone, '
            'QuantNeck or, for a head that the file has, QuantHead.'
        )
    network = Network(freeze(written), parts).eval()
    if chosen is not None:
        check_grids(written, chosen)
    make_swin_traceable(network)
    channels = image_channels(model) or COLOUR
    images = torch.zeros(2 if dynamic else batch, channels, *size)
    names = _prepare_outputs(network, images, nms)
    shape = (None, None, None) if dynamic else (batch, *size)
    metadata = make_metadata(
        cfg, model, classes, shape, divisor, names, nms, chosen, parts
    )
    _check_description(metadata, path)
    rules = None if chosen is None else TARGETS[chosen]
    job = Job(network, images, metadata, path, rules, int4)
    return dict(WRITERS[path.suffix](job), metadata=metadata)


def _check_options(
    path: Path, batch: int, dynamic: bool, int4: bool, nms: bool
) -> None:
    if path.suffix not in WRITERS:
        raise ValueError(
            f'expected a file name ending in {" or ".join(WRITERS)}, got '
            f'{path}.'
        )
    for name, value in dict(dynamic=dynamic, int4=int4, nms=nms).items():
        boolean(name, value)
    if nms and (dynamic or batch != 1):
        raise ValueError(
            'nms=True expected dynamic=False and batch=1 (a graph with NMS '
            'takes one image of a fixed size), got '
            f'dynamic={dynamic}, batch={batch}.'
        )
    if path.suffix not in _FLEXIBLE and (dynamic or nms):
        raise ValueError(
            f'a {path.suffix} file takes images of one size and gives the '
            'outputs of the head; expected dynamic=False and nms=False, got '
            f'dynamic={dynamic}, nms={nms}. Leave out --dynamic and --nms: '
            'Detector and tools/detect.py decode and run NMS outside of the '
            'file.'
        )
    if path.suffix == '.param' and batch != 1:
        raise ValueError(
            f'ncnn takes one image at a time; expected batch=1, got {batch}. '
            'Leave out --batch: the tools run a batch image by image.'
        )
    _check_bin(path)


def _check_bin(path: Path) -> None:
    """Make sure that no weights of another format are replaced."""
    other = path.with_suffix(_WITH_BIN.get(path.suffix, path.suffix))
    if other != path and other.exists():
        renamed = path.with_name(f'{path.stem}_{path.suffix[1:]}{path.suffix}')
        raise ValueError(
            f'{other} has its weights in {path.with_suffix(".bin")}, which '
            f'{path} would replace. Type another name, such as --out '
            f'{renamed}.'
        )


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
    count = count_classes(model)
    if count is not None and len(classes) != count:
        raise ValueError(
            f'expected the names of {count} classes, as many as num_classes '
            f'of the box head, got {list(classes)}.'
        )
    if not configured_pipeline(cfg):
        warnings.warn(
            'no test pipeline in the config (test_dataloader.dataset.'
            'pipeline): Detector and tools/detect.py will refuse the file.',
            stacklevel=3,
        )


def _check_description(metadata: dict[str, Any], path: Path) -> None:
    """Check the metadata as the file's readers will; warn of what only some
    of them will refuse."""
    read_back = json.loads(json.dumps(metadata))
    check_metadata(read_back)
    if not read_back['config']['test_dataloader']['dataset']['pipeline']:
        return  # _check_config has warned already
    if read_back['rest']:
        return  # Detector runs whole detectors alone
    try:
        detector_configs(read_back, path)
    except ValueError as error:
        warnings.warn(
            f'Detector and tools/detect.py will refuse the file: {error}',
            stacklevel=3,
        )


@torch.no_grad()
def _prepare_outputs(network: Network, images: Tensor, nms: bool) -> Any:
    """Run the network once and name its outputs; add NMS if asked for."""
    outputs = check_calls(network.detector, lambda: network.outputs(images))
    if network.parts.rest and any(
        len(output) != len(images) for output in flatten(outputs)
    ):
        raise ValueError(
            f'{type(network.detector).__name__} gives outputs of another '
            f'batch size than its {len(images)} images; a file with a part of '
            'it can not be run. Expected one feature map per image and level '
            '(TridentNet: test_branch_idx of 0 or more).'
        )
    if not nms:
        return network.parts.name(outputs)
    head: Any = network.detector.bbox_head
    height, width = images.shape[2:]
    network.graph_nms = GraphNMS(head, (height, width), outputs)
    return NAMES
