"""Converts a frozen network to an object of LiteRT's schema."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from mmgor.deploy.decomposed.graphs import layer_of
from mmgor.deploy.decomposed.program import Weights, lower_module
from mmgor.deploy.optional_imports import require

from .pooling import pad_with_zeros
from .requantizing import keep_requantizations, round_outputs_again


def convert(
    network: nn.Module, images: Tensor, outputs: Sequence[str]
) -> tuple[Any, int]:
    """Convert a frozen network with litert-torch.

    Args:
        network (nn.Module): With the operators that :func:`.freeze` puts in.
        images (Tensor): Of the shape that the file will take.
        outputs (Sequence[str]): Names of the network's outputs.

    Returns:
        tuple[ModelT, int]: The model, whose input is named 'images', and the
        number of folded batch norms.

    Raises:
        RuntimeError: If litert-torch can't convert it.
        ValueError: If int8 can't hold the network; see :func:`.lower_module`.
    """
    litert_torch = require('litert_torch')
    quantize = require('litert_torch.quantize.pt2e_quantizer')
    settings = require('litert_torch.quantize.quant_config')
    utils = require('ai_edge_litert.tools.flatbuffer_utils')
    module, folded = lower_module(network, images, Weights.ROUNDED)
    pad_with_zeros(module)
    keep_requantizations(module)
    round_outputs_again(module)
    _name_layers(module)
    # Else it warns; eval() is not there for traced modules.
    module.training = False
    # It tells the converter that the program is rounded already.
    rounded = quantize.get_symmetric_quantization_config(is_per_channel=True)
    config = settings.QuantConfig(
        pt2e_quantizer=quantize.PT2EQuantizer().set_global(rounded)
    )
    with _silent(litert_torch):
        try:
            found = litert_torch.convert(
                module, (images,), quant_config=config
            )
            content = found.model_content()
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                'litert-torch could not convert the network. Its report '
                f'names the operator: {error}'
            ) from error
    model = utils.read_model_from_bytearray(content)
    name_ends(model, outputs)
    return model, folded


def _name_layers(module: GraphModule) -> None:
    """Let the tensors of the file have the paths of their layers.

    litert-torch names a tensor after the class of each module around it and
    the last part of its path. Here the path has no other parts.
    """
    for node in module.graph.nodes:
        path = layer_of(node).replace('.', '/')
        node.meta['nn_module_stack'] = {'layer': (path, 'layer')}


def name_ends(model: Any, outputs: Sequence[str]) -> None:
    """Name the input 'images', and the outputs.

    Args:
        model (ModelT): Object of LiteRT's schema; changed in place.
        outputs (Sequence[str]): Names of the network's outputs.
    """
    (signature,) = model.signatureDefs
    (images,) = signature.inputs
    images.name = b'images'
    for end in signature.outputs:
        position = int(end.name.decode().rpartition('_')[2])
        end.name = outputs[position].encode()
    tensors = model.subgraphs[0].tensors
    for end in (images, *signature.outputs):
        tensors[end.tensorIndex].name = end.name


@contextmanager
def _silent(litert_torch: Any) -> Iterator[None]:
    """In the block, litert-torch prints no progress."""
    config = litert_torch.config
    shown, config.show_progress = config.show_progress, False
    try:
        yield
    finally:
        config.show_progress = shown
