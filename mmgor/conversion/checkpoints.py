"""Checkpoints of a conversion: files, URLs and those of a model zoo."""

import os
from pathlib import Path

from mmengine.hub import get_config


def zoo_checkpoint(config: str) -> str | None:
    """URL of the checkpoint that a model zoo has for one of its configs.

    Args:
        config (str): A path, or a name such as
            'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'.

    Returns:
        str | None: None if it is a path, or the zoo has none.
    """
    if '::' not in config:
        return None
    try:
        return get_config(config, pretrained=True).get('model_path')
    except (AssertionError, AttributeError, KeyError):
        return None


def is_url(checkpoint: str) -> bool:
    """Whether a checkpoint has to be downloaded first."""
    return '://' in checkpoint


def check_file(checkpoint: str, owner: str) -> None:
    """Make sure that a checkpoint on this machine exists.

    Args:
        checkpoint (str): Path or URL.
        owner (str): What the message calls it.

    Raises:
        FileNotFoundError: If it is a path and there is no file.
    """
    if not is_url(checkpoint) and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f'{owner} not found: {checkpoint}; expected a file, relative to '
            f'{Path.cwd()}, or a URL.'
        )


def path_from(folder: Path, path: str) -> str:
    """A path of the command line as a config in ``folder`` writes it: names
    and URLs as they are, files relative to where training is started."""
    if '::' in path or is_url(path):
        return path
    return os.path.relpath(path, folder)
