"""Read a teacher's config, weights and class names.

The reading itself is done in :mod:`mmgor.io`; here error messages get the
teacher's name and say what to write in ``teachers``.
"""

from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from mmgor.io import class_names, config_reader
from mmgor.io.checkpoint_loader import load_weights
from mmgor.io.checkpoint_reader import read_state_dict


def read_config(name: str, config: Any) -> Any:
    """A teacher's config as a dict; see
    :func:`mmgor.io.config_reader.read_config`.

    Args:
        name (str): Name of the teacher.
        config (str | dict): Path of a config, an 'mmdet::...' name, a config
            dict with ``model``, or a model dict.
    """
    return config_reader.read_config(config, f'config of teacher {name!r}')


def model_config(name: str, config: Any) -> ConfigDict:
    """The model in a teacher's config; see
    :func:`mmgor.io.config_reader.model_config`.

    Args:
        name (str): Name of the teacher.
        config (dict): From :func:`read_config`.
    """
    return config_reader.model_config(config, f'config of teacher {name!r}')


def read_checkpoint(name: str, path: str) -> tuple[dict, Any]:
    """Weights and meta of a teacher's checkpoint; meta is {} if it has none.

    Args:
        name (str): Name of the teacher.
        path (str): Path or URL.

    Raises:
        FileNotFoundError: If the file does not exist.
        RuntimeError: If it cannot be read.
    """
    try:
        return read_state_dict(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'checkpoint of teacher {name!r} not found: {path}. '
            'Train the teacher first, or give a path or URL of its '
            'weights.'
        ) from error
    except ValueError as error:
        raise RuntimeError(
            f'checkpoint of teacher {name!r} could not be read: {error}'
        ) from error


def load_teacher(
    name: str, path: str, model: nn.Module, state_dict: dict
) -> None:
    """Load a teacher's weights; see
    :func:`mmgor.io.checkpoint_loader.load_weights`.

    Args:
        name (str): Name of the teacher.
        path (str): The checkpoint, for error messages.
        model (nn.Module): The teacher's detector.
        state_dict (dict): From :func:`read_checkpoint`.

    Raises:
        RuntimeError: If the weights do not fit the model.
        ValueError: If a weight is NaN or infinite, or a quantizer has no
            range or an absurd one.
    """
    owner = f'checkpoint of teacher {name!r} ({path})'
    load_weights(model, state_dict, owner)
    # Quantizers have this attribute: distillation does not know their class.
    blank = [
        key.rpartition('.')[0]
        for key, module in model.named_modules()
        if getattr(module, 'calibrated', True) is False
    ]
    layers = list(dict.fromkeys(blank))
    if layers:
        raise ValueError(
            f'{owner} has no ranges for {len(layers)} quantized layers, e.g. '
            f'{layers[:3]}; expected the checkpoint of a quantized training '
            'of its config. Give that one, or the float config of this '
            'checkpoint.'
        )


def find_classes(name: str, meta: Any, config: Any) -> tuple[str, ...] | None:
    """A teacher's class names; see :func:`mmgor.io.class_names.find_classes`.

    Args:
        name (str): Name of the teacher.
        meta (dict): From :func:`read_checkpoint`.
        config (dict): From :func:`read_config`.

    Raises:
        FileNotFoundError: If the config names a file that can't be read.
        ValueError: If the class names can't be used.
    """
    try:
        return class_names.find_classes(meta, config, f'teacher {name!r}')
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f'{error} Set it there, or teachers=dict({name}=dict(classes='
            '[...], ...)).'
        ) from error
