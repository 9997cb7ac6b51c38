"""The teachers of a student, by name."""

import copy
from collections.abc import ItemsView, Sequence
from typing import Any

import torch

from .arguments import check_arguments
from .teacher import Teacher


class Teachers:
    """Named teachers, in the order of the config. It is not a module.

    A deep copy (such as EMA makes) shares the detectors with the original.
    They do not move with the copy, until the copy calls :meth:`build` itself.

    Args:
        teachers (dict): Name -> arguments of :class:`~.teacher.Teacher`.

    Raises:
        TypeError: If ``teachers`` is not a dict.
        ValueError: If it is empty, or the arguments of a teacher are wrong.
    """

    def __init__(self, teachers: dict) -> None:
        if not isinstance(teachers, dict):
            raise TypeError(
                'expected teachers=dict(<name>=dict(config=..., checkpoint='
                f'...)), got {teachers!r}.'
            )
        if not teachers:
            raise ValueError(
                'expected at least one teacher, got none: set teachers=dict('
                '<name>=dict(config=..., checkpoint=...)).'
            )
        self._moves = True
        self._teachers: dict[str, Teacher] = {}
        for name, spec in teachers.items():
            check_arguments(name, spec)
            self._teachers[name] = Teacher(name, **spec)

    def __deepcopy__(self, memo: dict) -> 'Teachers':
        twin = copy.copy(self)
        twin._moves = False
        twin._teachers = {k: copy.copy(t) for k, t in self.items()}
        return twin

    def __getitem__(self, name: str) -> Teacher:
        if name not in self._teachers:
            raise ValueError(
                f'unknown teacher {name!r}; expected one of {self.names()}.'
            )
        return self._teachers[name]

    def names(self) -> list[str]:
        """Names of the teachers."""
        return list(self._teachers)

    def items(self) -> ItemsView[str, Teacher]:
        """(name, teacher) pairs."""
        return self._teachers.items()

    def build(self, device: torch.device, taps: Sequence[str] = ()) -> None:
        """Build all teachers; those of the same files share one detector.

        Args:
            device (torch.device): Where the weights go, see
                :meth:`.Teacher.build`.
            taps (Sequence[str]): Module paths that any of them is asked for.
        """
        self._moves = True
        built: dict[tuple, Teacher] = {}
        for teacher in self._teachers.values():
            key = (
                repr(teacher.config),
                teacher.checkpoint,
                teacher.dtype,
                teacher.channels_last,
                teacher.offload,
                repr(teacher.cache),
            )
            if key in built:
                teacher.share(built[key])
            else:
                teacher.build(device, taps)
                built[key] = teacher

    def _apply(self, fn: Any) -> None:
        """Change device or dtype of the detectors, as ``nn.Module._apply``."""
        if not self._moves:
            return
        models = {
            id(t.model): t.model
            for t in self._teachers.values()
            if t.is_built and not t.offload
        }
        for model in models.values():
            model._apply(fn)
