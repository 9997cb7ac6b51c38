"""Any mmdet detector as a student: stock losses plus weighted KD."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmengine import dist
from torch import Tensor, nn

from mmgor.dense_heads.levels import as_list
from mmgor.distillation import (
    Recorded,
    Recorder,
    Teacher,
    Teachers,
    by_teacher,
    check_tap,
    kd_losses,
)
from mmgor.io.checkpoint import check_any_match, check_sound, is_deployed
from mmgor.io.config_values import text
from mmgor.registry import MODELS, find, naming_typos

from .builders import build_kd_heads, build_weighting


class GoRMixin(BaseDetector):
    """Adds teachers, KD heads and loss weighting to a detector class.

    Listed before the stock class, whose ``loss`` it calls once and whose
    ``predict`` it leaves alone. Teachers are not part of the module tree;
    they are built by ``init_weights`` (training only).

    Args:
        teachers (dict): Name -> the arguments of :class:`Teacher`, at least
            ``dict(config=..., checkpoint=...)``.
        kd_heads (dict): Name -> config of a registered KD head.
        gor_weighting (dict): Config of a registered weighting.
        gradient_tap (str): Module whose output both losses depend on, where
            their gradients are measured.
        *args: Of the stock detector.
        **kwargs: Of the stock detector.

    Raises:
        TypeError: If ``teachers`` or ``kd_heads`` is no dict.
        ValueError: If there is no KD head, a head names an unknown teacher or
            tap, or a config builds no KD head or no weighting.
    """

    def __init__(
        self,
        *args: Any,
        teachers: dict,
        kd_heads: dict,
        gor_weighting: dict,
        gradient_tap: str = 'neck',
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.teachers = Teachers(teachers)
        self.kd_heads = build_kd_heads(kd_heads)
        if not self.kd_heads:
            raise ValueError(
                'GoRDetector needs at least one KD head, e.g. kd_heads=dict('
                "cls=dict(type='LogitKDHead')). For QAT without KD use the "
                'stock detector type with the Quant wrappers.'
            )
        self.gor_weighting = build_weighting(gor_weighting)
        self.gradient_tap = text('gradient_tap', gradient_tap, 'neck')
        self._resolve_names()
        self.register_load_state_dict_post_hook(_forgive_training_keys)

    def _heads(self) -> list[tuple[str, Any]]:
        return list(self.kd_heads.items())

    def _resolve_names(self) -> None:
        """Check teacher names and student taps while it is cheap."""
        names = self.teachers.names()
        for key, head in self._heads():
            if not head.teachers and len(names) == 1:
                head.teachers = names
            unknown = [n for n in head.teachers if n not in names]
            if unknown or not head.teachers:
                raise ValueError(
                    f'unknown teacher {unknown or None} in kd_heads.{key}; '
                    f'expected some of {names}. With several teachers every '
                    'head must name its own: teacher=<name>, or a list.'
                )
            owner = f'student (student_tap of kd_heads.{key})'
            check_tap(self, head.student_tap, owner)
        check_tap(self, self.gradient_tap, 'student (gradient_tap)')
        used = {n for _, head in self._heads() for n in head.teachers}
        idle = set(names) - used
        if idle:
            raise ValueError(
                f'no KD head learns from teacher(s) {sorted(idle)}; expected '
                'one each. Add kd_heads=dict(<name>=dict(type=..., teacher='
                '<teacher>)) or remove them from teachers.'
            )

    def init_weights(self) -> None:
        """Initialise the student, then build the teachers."""
        super().init_weights()
        self.build_teachers()

    def build_teachers(self) -> None:
        """Load the teachers and introduce them to the KD heads."""
        parameter = next(self.parameters())
        self.teachers.build(parameter.device)
        for _, head in self._heads():
            head.bind(self, [self.teachers[name] for name in head.teachers])

    def map_classes(self, classes: Sequence[str] | None) -> None:
        """Tell the KD heads where the teachers have the student's classes.

        Args:
            classes (Sequence[str], optional): Of the student's data.

        Raises:
            ValueError: If a teacher knows none of them, or names are unknown
                and numbers differ.
        """
        for _, head in self._heads():
            if head.reads_classes:
                head.map_classes(
                    [
                        self.teachers[name].class_index(classes)
                        for name in head.teachers
                    ]
                )

    def class_teachers(self) -> list[Teacher]:
        """Teachers whose classes a KD head reads."""
        names = {
            name
            for _, head in self._heads()
            if head.reads_classes
            for name in head.teachers
        }
        return [t for name, t in self.teachers.items() if name in names]

    # Hooks catch the features, and teachers and weights change from outside.
    @torch.compiler.disable
    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """Stock losses and KD losses, weighted.

        Args:
            batch_inputs (Tensor): Shape (N, C, H, W), preprocessed.
            batch_data_samples (list[DetDataSample]): N samples.

        Returns:
            dict: Weighted losses and ``gor_*`` diagnostics.
        """
        paths = {head.student_tap for _, head in self._heads()}
        paths.add(self.gradient_tap)
        with Recorder(self, paths) as recorder:
            task = super().loss(batch_inputs, batch_data_samples)
        size = (batch_inputs.shape[-2], batch_inputs.shape[-1])
        heads = dict(self._heads())
        kd = kd_losses(
            heads,
            self.teachers,
            {
                path: Recorded(
                    self.get_submodule(path),
                    recorder[path],
                    size,
                    batch_data_samples,
                )
                for path in paths
            },
            batch_inputs,
            self.data_preprocessor,
        )
        shared = as_list(recorder[self.gradient_tap])
        weighted = self.gor_weighting(task, kd, shared)
        if len(self.teachers.names()) > 1:
            weighted.update(by_teacher(heads, kd, weighted['gor_w_kd']))
        return weighted

    def stock_loss(self, inputs: Tensor, data_samples: list) -> dict:
        """The detector's own losses alone, unweighted; as ``mode='loss'``."""
        return super().loss(inputs, data_samples)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict:
        """A Runner's step, without DDP.

        Raises:
            RuntimeError: If the balancer has thetas that nobody moves.
        """
        self._check_moved()
        return super().train_step(data, optim_wrapper)

    def parse_losses(self, losses: dict) -> tuple[Tensor, dict]:
        """What mmengine's DDP calls in a step in place of ``train_step``.

        Raises:
            RuntimeError: As there.
        """
        if dist.is_distributed():
            self._check_moved()
        return super().parse_losses(losses)

    def _check_moved(self) -> None:
        weighting = self.gor_weighting
        if not getattr(weighting, 'moved_by_hook', True):
            raise RuntimeError(
                f'nobody moves the thetas of {type(weighting).__name__}; '
                "expected custom_hooks=[dict(type='GoRWeightHook')], or a "
                "gor_weighting without any, e.g. dict(type='FixedWeighting')."
            )

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> nn.Module:
        """Take the teachers along to other devices and dtypes."""
        self.teachers._apply(fn)
        return super()._apply(fn, *args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        check_any_match(self, state_dict, prefix, type(self).__name__)
        own = {prefix + k: v for k, v in self.state_dict().items()}
        check_sound(own, state_dict, 'checkpoint')
        super()._load_from_state_dict(state_dict, prefix, *args)


def _forgive_training_keys(module: nn.Module, incompatible: Any) -> None:
    """A published or float file has no KD and GoR keys, and needs none."""
    missing = incompatible.missing_keys
    missing[:] = [k for k in missing if is_deployed(k)]


def gor_class(detector: str | type) -> type:
    """The student class for a registered detector class.

    Args:
        detector (str | type): Registered name, e.g. 'RetinaNet', or class.

    Returns:
        type: ``GoR<detector>``, a subclass of :class:`GoRMixin` and it.

    Raises:
        ValueError: If the name is no registered detector.
    """
    base = find(detector)
    if not (isinstance(base, type) and issubclass(base, BaseDetector)):
        raise ValueError(
            f'detector={detector!r} is no registered mmdet detector class; '
            "expected a name such as 'RetinaNet', 'ATSS' or 'YOLOX'."
        )
    return _joined(base)


@cache
def _joined(base: type) -> type:
    name = f'GoR{base.__name__}'
    return type(name, (GoRMixin, base), {'__module__': __name__})


def __getattr__(name: str) -> type:
    """Let pickle find ``GoR<detector>`` by name."""
    if name.startswith('GoR') and find(name[3:]) is not None:
        return gor_class(name[3:])
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


@MODELS.register_module()
def GoRDetector(detector: str | type, **kwargs: Any) -> BaseDetector:
    """Build a student: any mmdet detector with teachers and weighted KD.

    Args:
        detector (str | type): Registered detector class, e.g. 'RetinaNet'.
        **kwargs: That class's arguments and those of :class:`GoRMixin`.

    Returns:
        BaseDetector: An instance of ``GoR<detector>``.

    Raises:
        TypeError: If ``detector`` is neither a str nor a class, or an
            argument is unknown.
    """
    if not isinstance(detector, (str, type)):
        raise TypeError(
            'expected detector=<registered name of a detector class>, such as '
            f"'RetinaNet', got {detector!r}."
        )
    student = gor_class(detector)
    with naming_typos(student):
        return student(**kwargs)
