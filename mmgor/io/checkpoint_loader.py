"""Load the weights of a checkpoint into a model, completely or not at all."""

import logging

from mmengine.logging import print_log
from torch import nn

from .checkpoint import check_sound, strip_training_keys

_SHOWN = 5


def load_weights(model: nn.Module, state_dict: dict, owner: str) -> None:
    """Load weights into a model that is used without any training.

    mmengine's Runner only warns about keys that do not match, so that a part
    of the model would keep its initial values. Here every key of the model
    must be in the checkpoint. The checkpoint must not have further keys under
    a part of the model (backbone, neck, head ...), since it would then belong
    to a deeper model. Other keys are named in a warning. KD heads and loss
    weighting of a student are left out.

    Args:
        model (nn.Module): The detector.
        state_dict (dict): Keys to tensors, see
            :func:`.checkpoint_reader.read_state_dict`.
        owner (str): The checkpoint's name for error messages.

    Raises:
        RuntimeError: If shapes differ, keys are missing, or a part of the
            model has more keys in the checkpoint.
        ValueError: See :func:`.checkpoint.check_sound`.
    """
    state_dict = strip_training_keys(state_dict)
    check_sound(model.state_dict(), state_dict, owner)
    try:
        result = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise RuntimeError(
            f'{owner} does not fit its config: {error}'
        ) from error
    _check_complete(result.missing_keys, owner)
    _check_unused(model, result.unexpected_keys, owner)


def _check_complete(keys: list[str], owner: str) -> None:
    # Files of early versions of torch do not have the counter.
    missing = [key for key in keys if not key.endswith('num_batches_tracked')]
    if missing:
        raise RuntimeError(
            f'{owner} lacks {len(missing)} keys of its config, e.g. '
            f'{missing[:_SHOWN]}; expected the checkpoint that this config '
            'was trained with.'
        )


def _check_unused(model: nn.Module, unused: list[str], owner: str) -> None:
    parts = {key.split('.')[0] for key, _ in model.named_parameters()}
    deeper = [key for key in unused if key.split('.')[0] in parts]
    if deeper:
        raise RuntimeError(
            f'{owner} has {len(deeper)} keys that its config lacks, e.g. '
            f'{deeper[:_SHOWN]}; expected the checkpoint that this config was '
            'trained with (the same depth, heads and quantization).'
        )
    if unused:
        print_log(
            f'{owner}: {len(unused)} keys of the checkpoint are unused, e.g. '
            f'{unused[:_SHOWN]}.',
            logger='current',
            level=logging.WARNING,
        )
