"""Writes the page of a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from mmgor.deploy.loading import load_detector
from mmgor.io.atomic_write import write_text
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.config_reader import read_config
from mmgor.io.training_log import read_training_log
from mmgor.pages import html_page

from .detections import look
from .image_section import image_section
from .model_sections import layer_section, scale_section
from .run_files import RunFiles, find_run, find_teachers
from .scales import scale_changes
from .sections import (
    IMAGES,
    LAYERS,
    SCALES,
    accuracy_section,
    links,
    loss_section,
    section,
    weight_section,
)
from .summary import accuracy_cards, model_cards, story, summary

#: Evaluation images that the student looks at, unless told otherwise.
NUM_IMAGES = 100
_NO_CONFIG = (
    'The config of the training was not found (*.py in the folder, or '
    '*/vis_data/config.py).'
)


def write_report(
    folder: Path,
    out: Path | None = None,
    images: int = NUM_IMAGES,
    checkpoint: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Write one HTML page on a training.

    What a work directory lacks is left out, with a sentence that says why.

    Args:
        folder (Path): Work directory of the training.
        out (Path, optional): File to write. Default: ``report.html`` in the
            work directory.
        images (int): Number of evaluation images to look at; 0: none.
        checkpoint (Path, optional): The student's weights. Default: the best
            checkpoint, else the last one.
        tell (Callable): Takes lines on the progress.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is no such folder or checkpoint, or
            neither a log nor a checkpoint in the folder.
        ValueError: If the log or the checkpoint can't be read.
    """
    run = find_run(folder)
    chosen = checkpoint or run.best or next(reversed(run.checkpoints), None)
    out = out or folder / 'report.html'
    tell(f'log: {len(run.logs)} file(s)')
    log = read_training_log(run.logs)
    cfg, no_config = _config(run.config)
    if cfg is None:
        model, why = None, no_config
    else:
        model, why = _student(cfg, chosen, checkpoint is not None, tell)
    figures = accuracy_cards(log)
    sentences = [no_config] if cfg is None else story(cfg, log, model)
    if model is not None:
        figures += model_cards(model)
    parts = [
        links(),
        summary(sentences, figures),
        accuracy_section(log),
        loss_section(log),
        weight_section(log, find_teachers(cfg or {})),
        section(LAYERS, '', [why])
        if model is None
        else layer_section(model, str(chosen)),
        _or_reason(SCALES, lambda: _scales(run, tell)),
        section(IMAGES, '', [why])
        if model is None
        else _or_reason(IMAGES, lambda: _images(cfg, model, images, tell)),
    ]
    facts = {
        'Folder': str(folder),
        'Config': str(run.config or 'not found'),
        'Checkpoint': str(chosen or 'none'),
    }
    title = f'Training {folder.resolve().name}'
    write_text(out, html_page(title, facts, ''.join(parts)))
    return out


def _config(path: Path | None) -> tuple[Any, str]:
    """The config of the training, or None and the reason."""
    if path is None:
        return None, _NO_CONFIG
    try:
        cfg = read_config(path)
    except RuntimeError as error:
        return None, _reason(error)
    if not isinstance(cfg.get('model'), dict):
        return None, f'{path} is no config of a training: it has no model.'
    return cfg, ''


def _student(
    cfg: Any,
    checkpoint: Path | None,
    asked: bool,
    tell: Callable[[str], None],
) -> tuple[nn.Module | None, str]:
    """The student with its weights, or None and the reason; if the user
    asked for this checkpoint, the error."""
    if checkpoint is None:
        return None, 'The folder has no checkpoint (*.pth).'
    tell(f'checkpoint: {checkpoint}')
    try:
        return load_detector(cfg, checkpoint), ''
    except Exception as error:  # a stock class may raise anything
        if asked:
            raise
        return None, _reason(error)


def _or_reason(title: str, make: Callable[[], str]) -> str:
    """A part of the page, or a sentence on why it could not be made."""
    try:
        return make()
    except Exception as error:  # data sets and models may raise anything
        return section(title, '', [_reason(error)])


def _reason(error: Exception) -> str:
    return f'Left out ({type(error).__name__}): {error}'


def _scales(run: RunFiles, tell: Callable[[str], None]) -> str:
    pair = run.checkpoints[-2:]
    if len(pair) < 2:
        return section(
            SCALES,
            '',
            [
                f'Two checkpoints of the training are needed to compare; the '
                f'folder has {len(pair)}. Set max_keep_ckpts of the '
                'checkpoint hook to 2 or more, and its interval so that two '
                'are written.'
            ],
        )
    tell(f'step sizes: {pair[0].name} and {pair[1].name}')
    before, after = (read_state_dict(path)[0] for path in pair)
    return scale_section(
        scale_changes(before, after), (pair[0].name, pair[1].name)
    )


def _images(
    cfg: Any, model: nn.Module, count: int, tell: Callable[[str], None]
) -> str:
    if not count:
        return section(IMAGES, '', ['Left out: 0 images were asked for.'])
    tell(f'images: up to {count}')
    return image_section(look(cfg, model, count, tell))
