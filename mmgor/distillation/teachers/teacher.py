"""A teacher: a frozen detector outside the student's module tree.

:class:`Teacher` ties the files of this folder together. It reads config and
checkpoint (``loading``), turns the student's images into its own inputs
(``preprocessing``), runs the detector on them (``forward``) in a form that is
cheap (``fast_form``) and finds the student's classes in its own list
(``class_mapping``).
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmgor.distillation.recorder import DETECTIONS, Recorded, Recorder
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.class_names import count_classes
from mmgor.io.config_values import boolean, choice
from mmgor.registry import MODELS

from .arguments import check_name, class_names
from .cache import output_cache
from .class_mapping import class_index, to_student_labels
from .fast_form import (
    AUTO,
    DTYPES,
    Form,
    choose_form,
    possible_forms,
)
from .forward import (
    features_of,
    float32_copy,
    float32_features,
    in_original_image,
    run_tapped_heads,
    tapped_heads,
    unlabelled_samples,
)
from .loading import (
    find_classes,
    load_teacher,
    model_config,
    read_checkpoint,
    read_config,
)
from .preprocessing import noise_input, to_teacher_inputs

# Sides in pixels of the noise that shows whether a form works.
_NOISE = 320


class Teacher:
    """One frozen detector.

    It is not a module, so that no state dict, optimizer, DDP wrapper or EMA
    copy of the student contains it.

    Args:
        name (str): Its name in ``teachers``.
        config (str | dict): Path of a config, an 'mmdet::...' name, a config
            dict with ``model``, or a model dict.
        checkpoint (str): Path or URL.
        classes (list[str], optional): Its class names. Default: those in the
            checkpoint, else those of the dataset that its config evaluates
            on.
        dtype (str): 'float32', 'bfloat16' or 'auto', which is bfloat16 where
            the device has units for it. It holds for backbone, neck and
            dense heads; detections are made of features in float32.
        channels_last (bool | str): Whether weights and inputs have the
            channels-last memory format. 'auto': if it gives the same.
        offload (bool): Whether the weights wait on the CPU between two
            steps.
        cache (dict, optional): Arguments of :class:`~.cache.OutputCache`, to
            keep what the teacher returns on disk.

    Raises:
        ValueError: If no checkpoint is given, or an argument is wrong.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        checkpoint: str | None,
        classes: Sequence[str] | None = None,
        dtype: str = AUTO,
        channels_last: bool | str = AUTO,
        offload: bool = False,
        cache: dict | None = None,
    ) -> None:
        check_name(name)
        if not isinstance(checkpoint, (str, PathLike)) or not str(checkpoint):
            raise ValueError(
                f'teacher {name!r} has no checkpoint; expected teachers=dict('
                f'{name}=dict(config=..., checkpoint=<path or URL>)), got '
                f'{checkpoint!r}.'
            )
        self.name = name
        self.config = config
        self.checkpoint = str(checkpoint)
        key = f'teachers.{name}'
        self.classes = None if classes is None else class_names(name, classes)
        self.dtype = choice(f'{key}.dtype', dtype, [*DTYPES, AUTO])
        if channels_last != AUTO:
            boolean(f'{key}.channels_last', channels_last)
        self.channels_last = channels_last
        self.offload = boolean(f'{key}.offload', offload)
        self.cache = cache
        self._cache = None if cache is None else output_cache(name, cache)
        self._model: nn.Module | None = None
        self._form = Form()
        self._heads: list[str] = []
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
        """Whether :meth:`build` or :meth:`share` was called."""
        return self._model is not None

    def build(self, device: torch.device, taps: Sequence[str] = ()) -> None:
        """Build, load and freeze the detector.

        Args:
            device (torch.device): Where the weights go, unless they are
                offloaded.
            taps (Sequence[str]): Module paths that :meth:`forward_taps` will
                be asked for; other teachers' may be among them.

        Raises:
            FileNotFoundError: If config or checkpoint is not there.
            ValueError: If the config has no model, a weight is not finite,
                a quantizer has no range, or class names cannot be read.
            RuntimeError: If a file cannot be read, or the checkpoint lacks
                keys of the model.
        """
        config = read_config(self.name, self.config)
        self._scope = config.get('default_scope')
        built = model_config(self.name, config)
        model = self._build_model(copy.deepcopy(built))
        model = revert_sync_batchnorm(model)
        state_dict, meta = read_checkpoint(self.name, self.checkpoint)
        load_teacher(self.name, self.checkpoint, model, state_dict)
        self._meta, self._whole_config = meta, config
        self._channels = image_channels(model)
        self.classes = self.classes or self._classes_in_files()
        if not self.offload:
            model = model.to(device)
        self._model = model.eval().requires_grad_(False)
        self._choose_form(device, taps)
        if self._cache is not None:
            self._cache.bind(self.model, [repr(built), str(self._form)])

    def _choose_form(self, device: torch.device, taps: Sequence[str]) -> None:
        """Bring the detector into the fastest form that keeps its outputs."""
        forms = possible_forms(self.dtype, self.channels_last, device)
        preprocessor: Any = self.model.data_preprocessor
        noise = noise_input(preprocessor, self._channels or COLOUR, _NOISE)
        with self._ready(device):
            self._model, self._form, self._heads, reason = choose_form(
                self.model, forms, noise.to(device), taps
            )
        self.model.requires_grad_(False)  # folded weights are new ones
        if self._form != Form():
            model: Any = self.model
            model.extract_feat = partial(float32_features, self._form, model)
        if reason:
            print_log(
                f'teacher {self.name!r} runs in {self._form}: {reason}.',
                'current',
            )

    def _build_model(self, config: dict) -> nn.Module:
        try:
            with DefaultScope.overwrite_default_scope(self._scope):
                return MODELS.build(config)
        except Exception as error:  # a stock class may raise anything
            raise RuntimeError(
                f'the model of teacher {self.name!r} could not be built from '
                f'its config ({type(error).__name__}: {error}).'
            ) from error

    def share(self, other: 'Teacher') -> None:
        """Use the detector of another teacher, built from the same files."""
        self._model, self._scope = other.model, other._scope
        self._form, self._heads = other._form, other._heads
        self._cache = other._cache
        self._channels = other._channels
        self.classes = self.classes or other._classes_in_files()

    def _classes_in_files(self) -> tuple[str, ...] | None:
        """Class names in checkpoint or config, after :meth:`build`."""
        return find_classes(self.name, self._meta, self._whole_config)

    def class_index(self, classes: Sequence[str] | None) -> list[int]:
        """Find the student's classes in this teacher's list.

        Where class names are unknown, lists of the same length count as
        equal.

        Args:
            classes (Sequence[str], optional): Names of the student's classes.

        Returns:
            list[int]: See :func:`~.class_mapping.class_index`.

        Raises:
            ValueError: If no class is in both lists, or there are not as
                many names as outputs.
        """
        count = count_classes(self.model)
        names = self.classes
        hint = f'Set teachers=dict({self.name}=dict(classes=[...], ...)).'
        if names is not None and count not in (None, len(names)):
            raise ValueError(
                f'teacher {self.name!r} has {count} classes in its head and '
                f'{len(names)} class names, {list(names)[:5]} ...; expected '
                f'the same number. {hint}'
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

    @torch.no_grad()
    def forward_taps(
        self,
        inputs: Tensor,
        student_preprocessor: nn.Module,
        data_samples: list,
        tap_names: Iterable[str],
    ) -> dict[str, Recorded]:
        """Run on the student's batch and return the tapped outputs.

        A head runs only if a tap is inside it. Test-time post-processing
        runs only for 'detections'.

        Args:
            inputs (Tensor): The student's input, shape (N, C, H, W).
            student_preprocessor (nn.Module): The student's data_preprocessor,
                which tells how the input was normalised.
            data_samples (list[DetDataSample]): N samples.
            tap_names (Iterable[str]): Module paths in the teacher, or
                'detections' for its N ``pred_instances``, with boxes in
                pixels of the input.

        Returns:
            dict[str, Recorded]: Tap name -> output, in float32.

        Raises:
            ValueError: If a tapped head needs more than features, or the
                student's images do not have the teacher's channels.
        """
        names = list(tap_names)
        self.model.eval()
        inputs = self._own_inputs(inputs, student_preprocessor, data_samples)
        run = partial(self._outputs, names=names)
        if self._cache is None:
            found = run(inputs, data_samples)
        else:
            found = self._cache.through(inputs, data_samples, names, run)
        return {
            name: Recorded(
                self.model
                if name == DETECTIONS
                else self.model.get_submodule(name),
                found[name],
                (inputs.shape[-2], inputs.shape[-1]),
                data_samples,
            )
            for name in names
        }

    def _outputs(
        self, inputs: Tensor, samples: list, names: Sequence[str]
    ) -> dict[str, Any]:
        """What the taps give for the teacher's own input."""
        model: Any = self.model
        paths = [name for name in names if name != DETECTIONS]
        found: dict[str, Any] = {}
        # Copies, since post-processing may write into outputs (YOLOv3's does).
        recorder = Recorder(model, paths, keep=float32_copy)
        with self._ready(inputs.device), recorder:
            if DETECTIONS in names:
                size = (inputs.shape[-2], inputs.shape[-1])
                unlabelled = unlabelled_samples(samples, size)
                seen = model.predict(inputs, unlabelled, rescale=False)
                found[DETECTIONS] = [one.pred_instances for one in seen]
            else:
                with self._form.autocast(inputs.device):
                    features = features_of(self._form, model, inputs)
                # A head that the form was not tried with runs in float32.
                known = set(tapped_heads(paths)) <= set(self._heads)
                form = self._form if known else Form()
                features = features if known else float32_copy(features)
                with form.autocast(inputs.device):
                    run_tapped_heads(self.name, model, features, paths)
        return {**found, **{path: recorder[path] for path in paths}}

    @torch.no_grad()
    def predict(
        self,
        inputs: Tensor,
        student_preprocessor: nn.Module,
        samples: list,
        classes: Sequence[str] | None,
    ) -> list:
        """Detect objects with the student's labels, for evaluation.

        Args:
            inputs (Tensor): The student's input, shape (N, C, H, W).
            student_preprocessor (nn.Module): The student's data_preprocessor,
                which tells how the input was normalised.
            samples (list[DetDataSample]): N samples with ``scale_factor``.
            classes (Sequence[str], optional): Names of the student's classes,
                in the order of its labels.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances``, whose
            boxes are in pixels of the original images.
        """
        model: Any = self.model
        inputs = self._own_inputs(inputs, student_preprocessor, samples)
        size = (inputs.shape[-2], inputs.shape[-1])
        for sample in samples:
            sample.set_metainfo(dict(batch_input_shape=size, pad_shape=size))
        # Only heads of MMYOLO know of the border that it puts around images.
        bordered = all('pad_param' in s.metainfo for s in samples)
        given = unlabelled_samples(samples, size) if bordered else samples
        with self._ready(inputs.device):
            found = model.eval().predict(inputs, given, rescale=not bordered)
        for sample, one in zip(samples, found):
            sample.pred_instances = one.pred_instances
            if bordered:
                sample.pred_instances.bboxes = in_original_image(
                    one.pred_instances.bboxes, sample.metainfo
                )
        index = torch.tensor(self.class_index(classes), device=inputs.device)
        for sample in samples:
            found = sample.pred_instances
            found.labels, known = to_student_labels(found.labels, index)
            sample.pred_instances = found[known]
        return samples

    def _own_inputs(
        self, inputs: Tensor, student_pp: nn.Module, samples: list
    ) -> Tensor:
        """The student's batch, normalised as this teacher was trained."""
        teacher_pp: Any = self.model.data_preprocessor
        return to_teacher_inputs(
            inputs, student_pp, teacher_pp, samples, self._channels
        )

    @contextmanager
    def _ready(self, device: torch.device) -> Iterator[None]:
        """The detector is on the device, in the registry scope of its config;
        an offloaded one goes back to the CPU at the end."""
        if self.offload:
            self.model.to(device)
        try:
            # The student's autocast does not apply here: see `dtype`.
            with (
                torch.autocast(device.type, enabled=False),
                DefaultScope.overwrite_default_scope(self._scope),
            ):
                yield
        finally:
            if self.offload:
                self.model.to('cpu')
