"""The student in a Runner: where it is, and how hooks run it on a batch."""

from functools import partial
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmgor.strategies import refuse_splitting


def unwrapped_model(runner: Runner) -> Any:
    """The detector without the wrappers around it.

    Args:
        runner (Runner): Its model may be wrapped, by DDP or for test-time
            augmentation.

    Raises:
        ValueError: If the wrapper splits tensors (FSDP, DeepSpeed).
    """
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        kind = type(model).__name__
        refuse_splitting(kind, f'the model wrapper {kind}')
        model = model.module
    return model


def run_losses(model: Any, batch: Any) -> Any:
    """Run the student as a training step does, up to its own losses.

    Neither teachers nor the balancer run. Calibration uses this: it reaches
    the layers that only the losses call.

    Args:
        model (nn.Module): A detector with its ``data_preprocessor``.
        batch (Any): As the train dataloader gives it.

    Returns:
        Any: The losses, usually a dict.
    """
    data = model.data_preprocessor(batch, True)
    run = getattr(model, 'stock_loss', partial(model, mode='loss'))
    return run(**data) if isinstance(data, dict) else run(*data)


def total_loss(model: Any, batch: Any) -> Tensor:
    """The sum of the student's own losses (:func:`run_losses`), shape ()."""
    total, _ = model.parse_losses(run_losses(model, batch))
    return total


def run_forward(model: Any, batch: Any) -> None:
    """Run the student up to its head's outputs, without losses.

    It also works in evaluation mode, in which some detectors (DINO) cannot
    compute their losses.

    Args:
        model (nn.Module): A detector with its ``data_preprocessor``.
        batch (dict): As the train dataloader gives it.
    """
    data = model.data_preprocessor(batch, False)
    model(**data, mode='tensor')
