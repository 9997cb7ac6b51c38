"""A teacher: a frozen detector outside the student's module tree."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmgor.distillation.recorder import DETECTIONS, Recorded, Recorder
from mmgor.image_channels import image_channels
from mmgor.io.config_values import boolean, choice
from mmgor.registry import MODELS

from .class_mapping import class_index, to_student_labels
from .forward import (
    bare_samples,
    features_in,
    float_copy,
    num_classes,
    run_heads,
)
from .loading import (
    find_classes,
    load_weights,
    model_config,
    read_checkpoint,
    read_config,
)
from .preprocessing import to_teacher_inputs

DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}


class Teacher:
    """One frozen detector. Not a module: it is in no state dict, optimizer,
    DDP wrapper or EMA copy.

    Args:
        name (str): For messages.
        config (str | dict): Path of a config, an 'mmdet::...' name, a config
            dict with ``model``, or a model dict.
        checkpoint (str): Path or URL.
        classes (list[str], optional): Its class names. Default: those in the
            checkpoint, else those of the dataset that its config evaluates
            on.
        dtype (str): 'bfloat16' runs backbone and neck under autocast; heads
            and boxes keep float32.
        channels_last (bool): Memory format of weights and inputs.
        offload (bool): Keep the weights on the CPU between two steps.

    Raises:
        ValueError: If no checkpoint is given, or an argument is wrong.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        checkpoint: str | None,
        classes: Sequence[str] | None = None,
        dtype: str = 'float32',
        channels_last: bool = False,
        offload: bool = False,
    ) -> None:
        if not isinstance(name, str):
            raise ValueError(
                f'the name of a teacher is {name!r}; expected a str, e.g. '
                f"teachers={{'teacher{name}': dict(config=..., "
                'checkpoint=...)}.'
            )
        if not isinstance(checkpoint, (str, PathLike)) or not str(checkpoint):
            raise ValueError(
                f'teacher {name!r} has no checkpoint; expected teachers=dict('
                f'{name}=dict(config=..., checkpoint=<path or URL>)), got '
                f'{checkpoint!r}.'
            )
        if 'loss' in name:
            raise ValueError(
                f"teacher {name!r}: expected a name without 'loss', since "
                'values logged under it would be added to the loss.'
            )
        self.name = name
        self.config = config
        self.checkpoint = str(checkpoint)
        key = f'teachers.{name}'
        self.classes = None if classes is None else _names(name, classes)
        self.dtype = DTYPES[choice(f'{key}.dtype', dtype, DTYPES)]
        self.channels_last = boolean(f'{key}.channels_last', channels_last)
        self.offload = boolean(f'{key}.offload', offload)
        self._model: nn.Module | None = None
        self._scope: str | None = None

    @property
    def model(self) -> nn.Module:
        """The detector.

        Raises:
            RuntimeError: Before :meth:`build`.
        """
        if self._model is None:
            raise RuntimeError(
                f'teacher {self.name!r} is not built; expected a call of '
                'model.init_weights() before training (the Runner does it).'
            )
        return self._model

    @property
    def is_built(self) -> bool:
        """Whether the detector is there."""
        return self._model is not None

    def build(self, device: torch.device) -> None:
        """Build, load and freeze the detector.

        Raises:
            FileNotFoundError: If config or checkpoint is not there.
            ValueError: If the config has no model, a weight is not finite,
                a quantizer has no range, or class names cannot be read.
            RuntimeError: If either cannot be read, or keys are missing.
        """
        config = read_config(self.name, self.config)
        self._scope = config.get('default_scope')
        model = self._built(model_config(self.name, config))
        model = revert_sync_batchnorm(model)
        state_dict, meta = read_checkpoint(self.name, self.checkpoint)
        load_weights(self.name, self.checkpoint, model, state_dict)
        self._told = meta, config
        self._channels = image_channels(model)
        self.classes = self.classes or self._found_classes()
        if not self.offload:
            model = model.to(device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if self.dtype is not None:
            model.extract_feat = partial(features_in, self.dtype, model)
        self._model = model.eval().requires_grad_(False)

    def _built(self, config: dict) -> nn.Module:
        try:
            with DefaultScope.overwrite_default_scope(self._scope):
                return MODELS.build(config)
        except Exception as error:  # whatever a stock class raises
            raise RuntimeError(
                f'the model of teacher {self.name!r} could not be built from '
                f'its config ({type(error).__name__}: {error}).'
            ) from error

    def class_index(self, classes: Sequence[str] | None) -> list[int]:
        """Where this teacher has the student's classes.

        Where class names are unknown, equal numbers count as equal lists.

        Args:
            classes (Sequence[str], optional): The student's.

        Returns:
            list[int]: See :func:`~.class_lists.class_index`.

        Raises:
            ValueError: If none is in both, or names and outputs differ in
                number.
        """
        count = num_classes(self.model)
        names = self.classes
        hint = f'Set teachers=dict({self.name}=dict(classes=[...], ...)).'
        if names is not None and count not in (None, len(names)):
            raise ValueError(
                f'teacher {self.name!r} has {count} classes in its head and '
                f'{len(names)} class names, {list(names)[:5]} ...; expected '
                f'as many. {hint}'
            )
        if classes is not None and names is not None:
            return class_index(classes, names, self.name)
        wanted = count if classes is None else len(classes)
        if wanted is None or count not in (None, wanted):
            raise ValueError(
                f'class names of teacher {self.name!r} or of the training '
                f'data are unknown, and {count} classes are no match for '
                f'{wanted}; expected names. {hint}'
            )
        return list(range(wanted))

    def share(self, other: 'Teacher') -> None:
        """Use the detector of another teacher with the same files."""
        self._model, self._scope = other.model, other._scope
        self._channels = other._channels
        self.classes = self.classes or other._found_classes()

    def _found_classes(self) -> tuple[str, ...] | None:
        """Class names that the files tell; only of a built teacher."""
        return find_classes(self.name, *self._told)

    def _inputs(
        self, inputs: Tensor, student_pp: nn.Module, samples: list
    ) -> Tensor:
        teacher_pp: Any = self.model.data_preprocessor
        return to_teacher_inputs(
            inputs, student_pp, teacher_pp, samples, self._channels
        )

    @torch.no_grad()
    def forward_taps(
        self,
        inputs: Tensor,
        student_preprocessor: nn.Module,
        data_samples: list,
        tap_names: Iterable[str],
    ) -> dict[str, Recorded]:
        """Run on the student's batch and return the tapped outputs.

        A head runs only where a tap is in it; test-time post-processing only
        for 'detections'.

        Args:
            inputs (Tensor): The student's input, shape (N, C, H, W).
            student_preprocessor (nn.Module): Tells how it was normalised.
            data_samples (list[DetDataSample]): N samples.
            tap_names (Iterable[str]): Module paths in the teacher, or
                'detections' for its N ``pred_instances``, in input pixels.

        Returns:
            dict[str, Recorded]: Tap -> what it gave, in float32.

        Raises:
            ValueError: If a tap is in a head that features do not suffice,
                or the student's images have other channels.
        """
        model: Any = self.model
        names = list(tap_names)
        paths = [name for name in names if name != DETECTIONS]
        model.eval()
        inputs = self._inputs(inputs, student_preprocessor, data_samples)
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        size = (inputs.shape[-2], inputs.shape[-1])
        detections = None
        # Post-processing may write into the outputs (YOLOv3's does).
        recorder = Recorder(model, paths, keep=float_copy)
        with self._running(inputs.device), recorder:
            if DETECTIONS in names:
                samples = bare_samples(data_samples, size)
                found = model.predict(inputs, samples, rescale=False)
                detections = [sample.pred_instances for sample in found]
            else:
                run_heads(self.name, model, model.extract_feat(inputs), paths)
        return {
            name: Recorded(
                model if name == DETECTIONS else model.get_submodule(name),
                detections if name == DETECTIONS else recorder[name],
                size,
                data_samples,
            )
            for name in names
        }

    @torch.no_grad()
    def predict(
        self,
        inputs: Tensor,
        student_preprocessor: nn.Module,
        samples: list,
        classes: Sequence[str] | None,
    ) -> list:
        """Detections in the original pictures' pixels, for evaluation.

        Args:
            inputs (Tensor): The student's input, shape (N, C, H, W).
            student_preprocessor (nn.Module): Tells how it was normalised.
            samples (list[DetDataSample]): N samples with ``scale_factor``.
            classes (Sequence[str], optional): The student's, which labels
                refer to.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``.
        """
        model: Any = self.model
        inputs = self._inputs(inputs, student_preprocessor, samples)
        size = (inputs.shape[-2], inputs.shape[-1])
        for sample in samples:
            sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size))
        with self._running(inputs.device):
            samples = model.eval().predict(inputs, samples, rescale=True)
        index = torch.tensor(self.class_index(classes), device=inputs.device)
        for sample in samples:
            found = sample.pred_instances
            found.labels, known = to_student_labels(found.labels, index)
            sample.pred_instances = found[known]
        return samples

    @contextmanager
    def _running(self, device: torch.device) -> Iterator[None]:
        """In its config's scope, on the device; then back where it waits."""
        if self.offload:
            self.model.to(device)
        try:
            # The student's autocast is none of the teacher's: see `dtype`.
            with (
                torch.autocast(device.type, enabled=False),
                DefaultScope.overwrite_default_scope(self._scope),
            ):
                yield
        finally:
            if self.offload:
                self.model.to('cpu')


def _names(teacher: str, classes: Any) -> tuple[str, ...]:
    """The class names of a config."""
    given = classes if isinstance(classes, (list, tuple)) and classes else [0]
    if not all(isinstance(name, str) for name in given):
        example = classes if isinstance(classes, str) else 'person'
        raise ValueError(
            f'teacher {teacher!r} has classes={classes!r}; expected a list, '
            f'e.g. classes=[{example!r}].'
        )
    return tuple(given)
