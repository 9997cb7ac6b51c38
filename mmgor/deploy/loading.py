"""Build a detector from a config and a checkpoint, ready to be deployed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmgor.io.checkpoint_loader import load_weights
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.class_names import (
    checkpoint_classes,
    count_classes,
    loader_classes,
)
from mmgor.io.config_reader import model_config
from mmgor.registry import MODELS


def load_detector(cfg: Config, checkpoint: str | Path | None) -> nn.Module:
    """The config's detector in evaluation mode, without its teachers.

    Args:
        cfg (Config): With ``model``; its scope becomes the default scope.
        checkpoint (str | Path, optional): File or URL. Its class names, if
            it has some, become the model's ``dataset_meta``. None: the
            weights keep their initial values.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the config has no model, or the checkpoint can't be
            read or has weights that are not finite.
        RuntimeError: If the checkpoint does not fit the model; see
            :func:`mmgor.io.checkpoint_loader.load_weights`.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model: Any = MODELS.build(model_config(cfg)).eval()
    model.dataset_meta = {}
    if checkpoint is None:
        return model
    state_dict, meta = read_state_dict(checkpoint)
    owner = f'checkpoint {checkpoint}'
    load_weights(model, state_dict, owner)
    model.dataset_meta = dict(classes=checkpoint_classes(meta, owner))
    return model


def class_names(cfg: Config, model: Any) -> tuple[str, ...]:
    """Names of the labels, in order: those of the checkpoint, else those of
    the config's test data.

    Args:
        cfg (Config): Complete config.
        model (nn.Module): From :func:`load_detector`.

    Raises:
        ValueError: If there are no names, or not as many as the head has
            classes.
        FileNotFoundError: If the config names a file that does not exist.
    """
    found = model.dataset_meta.get('classes')
    found = found or loader_classes(cfg, 'test_dataloader')
    count = count_classes(model)
    if not found or (count is not None and len(found) != count):
        names = list(found) if found else 'none'
        raise ValueError(
            f'expected the names of {count} classes in the checkpoint or in '
            f'test_dataloader.dataset.metainfo, got {names}. Add metainfo='
            "dict(classes=('...',)) to the data set in the config."
        )
    return tuple(found)
