"""Build a student: any mmdet detector with teachers and weighted KD.

``type='GoRDetector'`` in a config calls :func:`GoRDetector`. It derives a
class from the detector that the config names and from
:class:`~.gor_mixin.GoRMixin`, which has the code of a training step.
"""

from functools import cache
from typing import Any

from mmdet.models.detectors import BaseDetector

from mmgor.registry import MODELS, find, naming_typos

from .gor_mixin import GoRMixin


@MODELS.register_module()
def GoRDetector(detector: str | type, **kwargs: Any) -> BaseDetector:
    """Build a student: any mmdet detector with teachers and weighted KD.

    Args:
        detector (str | type): Registered detector class, e.g. 'RetinaNet'.
        **kwargs: Arguments of that class and of
            :class:`~.gor_mixin.GoRMixin`.

    Returns:
        BaseDetector: An instance of ``GoR<detector>``.

    Raises:
        TypeError: If ``detector`` is neither a string nor a class, or an
            argument is unknown.
        ValueError: If ``detector`` is not a registered detector.
    """
    if not isinstance(detector, (str, type)):
        raise TypeError(
            'expected detector=<registered name of a detector class>, such as '
            f"'RetinaNet', got {detector!r}."
        )
    student = gor_class(detector)
    with naming_typos(student):
        return student(**kwargs)


def gor_class(detector: str | type) -> type:
    """The student class for a registered detector class.

    Args:
        detector (str | type): Registered name, e.g. 'RetinaNet', or class.

    Returns:
        type: ``GoR<detector>``, a subclass of :class:`~.gor_mixin.GoRMixin`
        and of the detector.

    Raises:
        ValueError: If ``detector`` is not a registered detector.
    """
    base = find(detector)
    if not (isinstance(base, type) and issubclass(base, BaseDetector)):
        raise ValueError(
            f'detector={detector!r} is not a registered mmdet detector class; '
            "expected a name such as 'RetinaNet', 'ATSS' or 'YOLOX'."
        )
    return _derived(base)


@cache
def _derived(base: type) -> type:
    name = f'GoR{base.__name__}'
    return type(name, (GoRMixin, base), {'__module__': __name__})


def __getattr__(name: str) -> type:
    """Let pickle find ``GoR<detector>`` by name, in any scope."""
    base = name.removeprefix('GoR')
    if base != name:
        for kind in (base, *(f'{s}.{base}' for s in MODELS.root.children)):
            if find(kind) is not None:
                return gor_class(kind)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
