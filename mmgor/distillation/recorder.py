"""Read a module's output by its path, for the length of one forward."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from torch import nn

#: Stands for a teacher's final detections where a tap is asked for.
DETECTIONS = 'detections'


@dataclass(frozen=True)
class Recorded:
    """What a detector's tap gave for one batch.

    Attributes:
        module (nn.Module): The tapped module (the detector itself where its
            detections were asked for).
        output (Any): What the module returned.
        size (tuple[int, int]): Height and width of the detector's input.
        data_samples (list[DetDataSample]): Of the batch.
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
        owner (str): Whose module it should be, for the message.

    Raises:
        ValueError: If it names none.
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
    """Catches module outputs inside a ``with`` block.

    Hooks fire when a module is called (``head(x)``), not when its ``forward``
    is; they are removed when the block ends, by an exception too.

    Args:
        model (nn.Module): Where to listen.
        paths (Iterable[str]): Module paths.
        keep (Callable): What to keep of an output when it comes; default:
            the output itself.

    Example:
        >>> with Recorder(model, ['neck']) as recorder:
        ...     losses = model.loss(inputs, samples)
        >>> features = recorder['neck']
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

    def __enter__(self) -> 'Recorder':
        for path, module in self._modules.items():
            self._handles.append(
                module.register_forward_hook(self._catcher(path))
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
            RuntimeError: If the module was never called in the block.
        """
        if path not in self._outputs:
            raise RuntimeError(
                f'the tap {path!r} never fired: expected that module to be '
                'called in every forward, or the KD head that reads it would '
                'do nothing. Tap a module that runs in training.'
            )
        return self._outputs[path]

    def _catcher(self, path: str) -> Any:

        def catch(module: nn.Module, args: Any, output: Any) -> None:
            self._outputs[path] = self._keep(output)

        return catch
