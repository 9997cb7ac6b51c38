"""Makes the metadata of an exported file: a dict that is written as JSON.

It holds everything that is needed to use the file without a config: the input,
the names of the outputs, the classes, the preprocessing, the head and the test
pipeline.
"""

from typing import Any

from mmengine.config import Config
from torch import nn

from mmgor.deploy.input_size import configured_pipeline
from mmgor.deploy.parts import Parts
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.checkpoint import weights_checksum
from mmgor.io.config_reader import model_config, with_registered_names
from mmgor.quantization import quantized_layers, tensor_quantizers
from mmgor.version import __version__

from .config_json import from_json, to_json, without

#: Key of the metadata in ONNX metadata_props, in OpenVINO's rt_info and in
#: LiteRT's metadata.
KEY = 'mmgor'
#: Version of the metadata's entries. It rises whenever they change.
FORMAT = 3
#: Entries of a model config that a file leaves out: they only matter in
#: training, or name files on the training machine.
LEFT_OUT = (
    'teachers',
    'kd_heads',
    'gor_weighting',
    'train_cfg',
    'init_cfg',
    'pretrained',
    'backend_args',
)


def make_metadata(
    cfg: Config,
    model: nn.Module,
    classes: tuple[str, ...],
    image_shape: tuple[int | None, ...],
    divisor: int,
    outputs: Any,
    nms: bool = False,
    target: str | None = None,
    parts: Parts | None = None,
) -> dict[str, Any]:
    """Describe an exported file.

    Args:
        cfg (Config): Complete config of the student.
        model (nn.Module): The student.
        classes (tuple[str, ...]): Class names in label order.
        image_shape (tuple): Batch size, height and width; None where it is
            dynamic.
        divisor (int): Dynamic sides are multiples of this many pixels.
        outputs (list): Names of the graph's outputs, nested as the head
            gives the outputs.
        nms (bool): Whether the graph decodes boxes and runs NMS itself.
        target (str, optional): Name of the target that it was written for.
        parts (Parts, optional): Parts of the student that the file has. By
            default all.

    Returns:
        dict: JSON can hold it.

    Raises:
        ValueError: If the config has something that JSON can't hold.
    """
    batch, height, width = image_shape
    named = with_registered_names(
        _for_inference(cfg), cfg.get('default_scope')
    )
    config = to_json(named)
    model_cfg = config['model']
    written = model if parts is None else parts.of(model)
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
        preprocessing=from_json(model_cfg.get('data_preprocessor') or {}),
        outputs=outputs,
        nms=nms,
        target=target,
        rest=[] if parts is None else parts.rest,
        weights_sha256=weights_checksum(model.state_dict()),
        tensors='all' if tensor_quantizers(written) else 'inputs',
        quantization=[
            dict(
                name=name,
                w_bits=layer.weight_quantizer.bits,
                a_bits=layer.input_quantizer.bits,
            )
            for name, layer in quantized_layers(written).items()
        ],
        config=config,
    )


def _for_inference(cfg: Config) -> dict[str, Any]:
    """The config without teachers, paths and settings of the training."""
    pipeline = configured_pipeline(cfg)
    return dict(
        default_scope=cfg.get('default_scope') or 'mmdet',
        model=without(model_config(cfg), LEFT_OUT),
        test_dataloader=dict(
            dataset=dict(pipeline=without(pipeline, LEFT_OUT))
        ),
    )
