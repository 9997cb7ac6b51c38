"""Record what modules of a detector return during one forward pass.

A "tap" is the dotted path of a module, as in the settings ``student_tap`` and
``teacher_tap``. :class:`Recorder` records the output behind each tap; KD heads
receive it as :class:`Recorded`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from types import TracebackType
from typing import Any

import torch
from torch import nn

#: Instead of a module path: the teacher's final detections.
DETECTIONS = 'detections'


@dataclass(frozen=True)
class Recorded:
    """The output of one module of a detector for one batch.

    Attributes:
        module (nn.Module): The module, or the detector itself where its
            detections were asked for.
        output (Any): What the module returned.
        size (tuple[int, int]): Height and width of the detector's input.
        data_samples (list[DetDataSample]): The batch's samples.
    """

    module: nn.Module
    output: Any
    size: tuple[int, int]
    data_samples: list


def check_tap(model: nn.Module, path: str, owner: str) -> None:
    """Make sure that ``path`` names a module of ``model``.

    Args:
        model (nn.Module): Student or teacher.
        path (str): Dotted path, e.g. 'neck' or 'neck.fpn_convs.0'.
        owner (str): Which model this is, for the message.

    Raises:
        ValueError: If there is no such module.
    """
    names = [name for name, _ in model.named_modules() if name]
    if path in names:
        return
    top = [name for name, _ in model.named_children()]
    close = get_close_matches(path, names, n=3)
    hint = f'; did you mean {close}?' if close else '.'
    raise ValueError(
        f'unknown tap {path!r} in the {owner}: expected a module '
        f'path under one of {top}{hint}'
    )


class Recorder:
    """Records module outputs inside a ``with`` block.

    Its forward hooks run when a module is called (``head(x)``), but not when
    only its ``forward`` is. They are removed when the block ends, even by an
    exception.

    Args:
        model (nn.Module): The model that the modules are in.
        paths (Iterable[str]): Module paths.
        keep (Callable): Applied to each output when it comes; default: keep
            the output itself.

    Example:
        >>> model = nn.ModuleDict({'neck': nn.Linear(2, 3)})
        >>> with Recorder(model, ['neck']) as recorder:
        ...     features = model['neck'](torch.ones(1, 2))
        >>> recorder['neck'] is features
        True
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Iterable[str],
        keep: Callable[[Any], Any] = lambda output: output,
    ) -> None:
        self._keep = keep
        self._modules = {path: model.get_submodule(path) for path in paths}
        self._handles: list[Any] = []
        self._outputs: dict[str, Any] = {}
        self._grad_enabled: dict[str, bool] = {}
        self._expects_grad = False

    @property
    def paths(self) -> list[str]:
        """Paths of the modules that it records."""
        return [*self._modules]

    def __enter__(self) -> 'Recorder':
        self._expects_grad = torch.is_grad_enabled()
        for path, module in self._modules.items():
            self._handles.append(
                module.register_forward_hook(self._recording(path))
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __getitem__(self, path: str) -> Any:
        """The last output of the module.

        Raises:
            RuntimeError: If the module was never called in the block, or ran
                under ``torch.no_grad()`` although the block itself allows
                gradients.
        """
        if path not in self._outputs:
            raise RuntimeError(
                f'the tap {path!r} never fired: expected that module to be '
                'called in every forward, or the KD head that reads it would '
                'do nothing. Tap a module that runs in training.'
            )
        # A reentrant checkpoint runs its modules without a graph and again
        # in backward, when nobody records: no KD gradient would reach them.
        if self._expects_grad and not self._grad_enabled[path]:
            raise RuntimeError(
                f'the tap {path!r} ran under torch.no_grad(), as all modules '
                'inside a reentrant activation checkpoint do: expected an '
                'output with a gradient, or its KD loss would train nothing. '
                'Checkpoint with use_reentrant=False (with_cp=False in a '
                "backbone of mmdet), or tap a module outside, e.g. 'neck'."
            )
        return self._outputs[path]

    def _recording(self, path: str) -> Any:

        def record(module: nn.Module, args: Any, output: Any) -> None:
            self._outputs[path] = self._keep(output)
            self._grad_enabled[path] = torch.is_grad_enabled()

        return record
