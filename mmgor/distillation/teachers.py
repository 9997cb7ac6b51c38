"""Teachers: frozen detectors outside the student's module tree."""

import copy
import os
from collections.abc import ItemsView, Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmgor.registry import MODELS

from .preprocess import to_teacher_inputs
from .taps import Taps


class Teacher:
    """One frozen detector. Not a module: it is in no state dict, optimizer,
    DDP wrapper or EMA copy.

    Args:
        name (str): For messages.
        config (str | dict): Path of a config, an 'mmdet::...' name, a config
            dict with ``model``, or a model dict.
        checkpoint (str): Path or URL.

    Raises:
        ValueError: If no checkpoint is given.
    """

    def __init__(self, name: str, config: Any, checkpoint: str | None) -> None:
        if not checkpoint:
            raise ValueError(
                f'teacher {name!r} has no checkpoint; expected teachers=dict('
                f'{name}=dict(config=..., checkpoint=<path or URL>)).'
            )
        self.name = name
        self.config = config
        self.checkpoint = checkpoint
        self.classes: tuple[str, ...] | None = None
        self._model: nn.Module | None = None

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
            ValueError: If the config has no model.
            RuntimeError: If either cannot be read, or keys are missing.
        """
        model = MODELS.build(self._model_config())
        model = revert_sync_batchnorm(model)
        state_dict, meta = self._read_checkpoint()
        self._load(model, state_dict)
        self.classes = _classes(meta)
        self._model = model.to(device).eval().requires_grad_(False)

    def share(self, other: 'Teacher') -> None:
        """Use the detector of another teacher with the same files."""
        self._model, self.classes = other.model, other.classes

    @torch.no_grad()
    def forward_taps(
        self,
        inputs: Tensor,
        student_preprocessor: nn.Module,
        data_samples: list,
        tap_names: Iterable[str],
    ) -> dict:
        """Run on the student's batch and return the tapped outputs.

        The head runs only where a tap is in it.

        Args:
            inputs (Tensor): The student's input, shape (N, 3, H, W).
            student_preprocessor (nn.Module): Tells how it was normalised.
            data_samples (list[DetDataSample]): N samples.
            tap_names (Iterable[str]): Module paths in the teacher.

        Returns:
            dict: Tap -> output.
        """
        model: Any = self.model
        names = list(tap_names)
        model.eval()
        inputs = to_teacher_inputs(
            inputs, student_preprocessor, model.data_preprocessor, data_samples
        )
        with Taps(model, names) as taps:
            features = model.extract_feat(inputs)
            if any(name.split('.')[0] == 'bbox_head' for name in names):
                model.bbox_head(features)
        return {name: taps[name] for name in names}

    def _model_config(self) -> ConfigDict:
        config = self.config
        if isinstance(config, (str, os.PathLike)):
            config = self._read_config(str(config))
        if not isinstance(config, (dict, Config)):
            raise ValueError(
                f'config of teacher {self.name!r} is {config!r}; expected a '
                "path, an 'mmdet::...' name or a dict."
            )
        model = config.get('model', config)
        if not isinstance(model, dict) or 'type' not in model:
            raise ValueError(
                f'config of teacher {self.name!r} has no model, only the keys '
                f'{list(config)}; expected model=dict(type=...).'
            )
        model = copy.deepcopy(ConfigDict(model))
        # As the Runner does: a config may keep it outside the model.
        if config.get('data_preprocessor') is not None:
            model.setdefault('data_preprocessor', config['data_preprocessor'])
        # The checkpoint has every weight; no backbone download needed.
        model.init_cfg = None
        if 'backbone' in model:
            model.backbone.init_cfg = None
        return model

    def _read_config(self, path: str) -> Config:
        if '::' not in path and not Path(path).is_file():
            raise FileNotFoundError(
                f'config of teacher {self.name!r} not found: {path}. Expected '
                "an existing .py file or a name such as 'mmdet::retinanet/"
                "retinanet_r101_fpn_1x_coco.py'."
            )
        try:
            return get_config(path) if '::' in path else Config.fromfile(path)
        except Exception as error:
            raise RuntimeError(
                f'config of teacher {self.name!r} could not be read: {path} '
                f'({type(error).__name__}: {error}).'
            ) from error

    def _read_checkpoint(self) -> tuple[dict, dict]:
        path = str(self.checkpoint)
        if '://' not in path and not Path(path).is_file():
            raise FileNotFoundError(
                f'checkpoint of teacher {self.name!r} not found: {path}. '
                'Train the teacher first, or give a path or URL of its '
                'weights.'
            )
        try:
            loaded = CheckpointLoader.load_checkpoint(path, 'cpu')
        except Exception as error:
            raise RuntimeError(
                f'checkpoint of teacher {self.name!r} could not be read: '
                f'{path} ({type(error).__name__}: {error}).'
            ) from error
        state_dict = (
            loaded.get('state_dict', loaded)
            if isinstance(loaded, dict)
            else loaded
        )
        if not isinstance(state_dict, dict):
            raise RuntimeError(
                f'checkpoint of teacher {self.name!r} could not be read: '
                f'{path} holds a {type(state_dict).__name__}, expected a dict '
                'of tensors or one with a state_dict.'
            )
        state_dict = {
            key.removeprefix('module.'): value
            for key, value in state_dict.items()
        }
        return state_dict, loaded.get('meta') or {}

    def _load(self, model: nn.Module, state_dict: dict) -> None:
        try:
            result = model.load_state_dict(state_dict, strict=False)
        except RuntimeError as error:
            raise RuntimeError(
                f'checkpoint of teacher {self.name!r} ({self.checkpoint}) '
                f'does not fit its config: {error}'
            ) from error
        missing = [
            key
            for key in result.missing_keys
            if not key.endswith('num_batches_tracked')
        ]
        if missing:
            raise RuntimeError(
                f'checkpoint of teacher {self.name!r} ({self.checkpoint}) '
                f'lacks {len(missing)} keys of its config, e.g. '
                f'{missing[:5]}; expected the checkpoint that this config '
                'was trained with.'
            )
        if result.unexpected_keys:
            print_log(
                f'teacher {self.name!r}: {len(result.unexpected_keys)} keys '
                f'of the checkpoint are unused, e.g. '
                f'{result.unexpected_keys[:3]}.',
                logger='current',
            )


class Teachers:
    """Named teachers, in order. Not a module; a deep copy is itself.

    Args:
        teachers (dict, optional): Name -> ``dict(config=, checkpoint=)``.

    Raises:
        ValueError: If a teacher is no such dict.
    """

    def __init__(self, teachers: dict | None) -> None:
        self._teachers: dict[str, Teacher] = {}
        for name, spec in (teachers or {}).items():
            if not isinstance(spec, dict):
                raise ValueError(
                    f'teacher {name!r} is {spec!r}; expected '
                    'dict(config=..., checkpoint=...).'
                )
            if set(spec) != {'config', 'checkpoint'}:
                raise ValueError(
                    f'teacher {name!r} has the keys {sorted(spec)}; expected '
                    "'config' and 'checkpoint'."
                )
            self._teachers[name] = Teacher(name, **spec)

    def __deepcopy__(self, memo: dict) -> 'Teachers':
        return self

    def __getitem__(self, name: str) -> Teacher:
        if name not in self._teachers:
            raise ValueError(
                f'unknown teacher {name!r}; expected one of {self.names()}.'
            )
        return self._teachers[name]

    def names(self) -> list[str]:
        """Names in the order of the config."""
        return list(self._teachers)

    def items(self) -> ItemsView[str, Teacher]:
        """(name, teacher) pairs."""
        return self._teachers.items()

    def build(self, device: torch.device) -> None:
        """Build all; teachers of the same files share one detector."""
        built: dict[tuple[str, str], Teacher] = {}
        for teacher in self._teachers.values():
            key = (repr(teacher.config), str(teacher.checkpoint))
            if key in built:
                teacher.share(built[key])
            else:
                teacher.build(device)
                built[key] = teacher

    def _apply(self, fn: Any) -> None:
        """What ``nn.Module._apply`` is to modules: devices and dtypes."""
        models = {
            id(t.model): t.model for t in self._teachers.values() if t.is_built
        }
        for model in models.values():
            model._apply(fn)


def _classes(meta: dict) -> tuple[str, ...] | None:
    dataset_meta = meta.get('dataset_meta') or {}
    classes = (
        dataset_meta.get('classes')
        or dataset_meta.get('CLASSES')
        or meta.get('CLASSES')
    )
    return tuple(classes) if classes else None
