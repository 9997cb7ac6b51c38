"""What several hooks need."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def unwrapped_model(runner: Runner) -> Any:
    """The detector itself, without DDP's or another wrapper around it."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model
