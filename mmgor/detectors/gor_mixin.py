"""One training step of a student: task losses, KD losses, their weights.

:class:`GoRMixin` is listed before a stock detector class. Its ``loss`` runs
the stock one, then the teachers (``mmgor.distillation``), and hands both
groups of losses to the weighting (``mmgor.weighting``).
"""

from collections.abc import Sequence
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
    as_samples,
    by_teacher,
    check_tap,
    kd_losses,
)
from mmgor.io.checkpoint import check_any_match, check_sound, is_deployed
from mmgor.io.config_values import text

from .builders import build_kd_heads, build_weighting


class GoRMixin(BaseDetector):
    """Adds teachers, KD heads and loss weighting to a detector class.

    It calls the stock ``loss`` once and leaves ``predict`` alone. Teachers
    are not part of the module tree; ``init_weights`` builds them, so only
    training needs their files.

    Args:
        teachers (dict): Name -> arguments of
            :class:`~mmgor.distillation.Teacher`, at least
            ``dict(config=..., checkpoint=...)``.
        kd_heads (dict): Name -> config of a registered KD head.
        gor_weighting (dict): Config of a registered weighting.
        gradient_tap (str): Path of a module whose output all losses depend
            on. The gradients of the losses are compared there.
        *args: Arguments of the stock detector.
        **kwargs: Arguments of the stock detector.

    Raises:
        TypeError: If ``teachers`` or ``kd_heads`` is not a dict.
        ValueError: If there is no KD head, a head names an unknown teacher or
            tap, or a config does not build a KD head or a weighting.
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
        self._resolve_teachers()
        self._check_taps()
        self.register_load_state_dict_post_hook(_forgive_training_keys)

    def _heads(self) -> list[tuple[str, Any]]:
        return list(self.kd_heads.items())

    def _resolve_teachers(self) -> None:
        """Give each KD head its teachers, and each teacher a KD head."""
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
        used = {n for _, head in self._heads() for n in head.teachers}
        idle = set(names) - used
        if idle:
            raise ValueError(
                f'no KD head learns from teacher(s) {sorted(idle)}; expected '
                'at least one for each. Add kd_heads=dict(<name>=dict('
                'type=..., teacher=<teacher>)) or remove them from teachers.'
            )

    def _check_taps(self) -> None:
        """Fail before any teacher is loaded if the student lacks a tap."""
        for key, head in self._heads():
            owner = f'student (student_tap of kd_heads.{key})'
            check_tap(self, head.student_tap, owner)
        check_tap(self, self.gradient_tap, 'student (gradient_tap)')

    def init_weights(self) -> None:
        """Initialise the student, then build the teachers."""
        super().init_weights()
        self.build_teachers()

    def build_teachers(self) -> None:
        """Load the teachers and bind the KD heads to them."""
        parameter = next(self.parameters())
        taps = [head.teacher_tap for _, head in self._heads()]
        self.teachers.build(parameter.device, taps)
        for _, head in self._heads():
            head.bind(self, [self.teachers[name] for name in head.teachers])

    def map_classes(self, classes: Sequence[str] | None) -> None:
        """Tell the KD heads where the teachers have the student's classes.

        Args:
            classes (Sequence[str], optional): Class names of the student's
                data.

        Raises:
            ValueError: If a teacher knows none of the classes, or names are
                unknown and the numbers of classes differ.
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
        """Teachers with a KD head that reads their classes."""
        names = {
            name
            for _, head in self._heads()
            if head.reads_classes
            for name in head.teachers
        }
        return [t for name, t in self.teachers.items() if name in names]

    # A compiler gets the stock loss only. Here, hooks record the features.
    @torch.compiler.disable(recursive=False)
    def loss(
        self, batch_inputs: Tensor, batch_data_samples: list | dict
    ) -> dict:
        """Compute the stock losses and the KD losses, and weigh them.

        Args:
            batch_inputs (Tensor): Preprocessed images, shape (N, C, H, W).
            batch_data_samples (list[DetDataSample] | dict): N samples, or
                MMYOLO's table of labels (:func:`~.as_samples`).

        Returns:
            dict: Weighted losses and ``gor_*`` diagnostics.
        """
        paths = {head.student_tap for _, head in self._heads()}
        paths.add(self.gradient_tap)
        samples = as_samples(batch_data_samples)
        with Recorder(self, paths) as recorder:
            task = super().loss(batch_inputs, batch_data_samples)
        return self._with_kd_losses(task, recorder, batch_inputs, samples)

    # Not compiled: teachers and loss weights change from outside.
    @torch.compiler.disable
    def _with_kd_losses(
        self,
        task: dict,
        recorder: Recorder,
        batch_inputs: Tensor,
        samples: list,
    ) -> dict:
        size = (batch_inputs.shape[-2], batch_inputs.shape[-1])
        student = {
            path: Recorded(
                self.get_submodule(path),
                recorder[path],
                size,
                samples,
            )
            for path in recorder.paths
        }
        heads = dict(self._heads())
        kd = kd_losses(
            heads,
            self.teachers,
            student,
            batch_inputs,
            self.data_preprocessor,
        )
        shared = as_list(recorder[self.gradient_tap])
        weighted = self.gor_weighting(task, kd, shared)
        if len(self.teachers.names()) > 1:
            weighted.update(by_teacher(heads, kd, weighted['gor_w_kd']))
        return weighted

    def stock_loss(self, inputs: Tensor, data_samples: list | dict) -> dict:
        """The stock detector's own losses, unweighted; as ``mode='loss'``."""
        return super().loss(inputs, data_samples)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict:
        """Make a training step; the Runner calls it, unless it uses DDP.

        Raises:
            RuntimeError: If the weighting has thetas but no hook moves them.
        """
        self._check_thetas_are_moved()
        return super().train_step(data, optim_wrapper)

    def parse_losses(self, losses: dict) -> tuple[Tensor, dict]:
        """Sum the losses; mmengine's DDP calls this, and not ``train_step``.

        Raises:
            RuntimeError: If the weighting has thetas but no hook moves them.
        """
        if dist.is_distributed():
            self._check_thetas_are_moved()
        return super().parse_losses(losses)

    def _check_thetas_are_moved(self) -> None:
        weighting = self.gor_weighting
        if not getattr(weighting, 'moved_by_hook', True):
            raise RuntimeError(
                f'no hook moves the thetas of {type(weighting).__name__}; '
                "expected custom_hooks=[dict(type='GoRWeightHook')], or a "
                'gor_weighting without thetas, e.g. '
                "dict(type='FixedWeighting')."
            )

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> nn.Module:
        """Move the teachers to another device or dtype with the student."""
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
    """Report no missing keys of KD heads and weighting: published and float
    checkpoints do not have them and need none."""
    missing = incompatible.missing_keys
    missing[:] = [k for k in missing if is_deployed(k)]
