"""What a conversion was asked for, and what it has found."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgor.datasets.data_folder import DataFolder

from .parts import Part
from .teachers import Choice, Teaching
from .trial import FloatProbe


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        config (str): The float detector's config, a path or 'mmdet::...'.
        out (Path): The config to write.
        checkpoint (str, optional): The float detector's weights. Default:
            those of the model zoo that the config is from.
        w_bits (int): Weight bits.
        a_bits (int): Activation bits.
        target (str, optional): See :data:`mmgor.targets.TARGETS`.
        teachers (Sequence[str]): 'CONFIG.py:CHECKPOINT' each.
        data (Path, optional): A folder with ``train.json``, ``eval.json`` and
            ``images/``. Default: the data of the config.
        epochs (int, optional): Length of the training. Default: as in the
            config.
    """

    config: str
    out: Path
    checkpoint: str | None = None
    w_bits: int = 4
    a_bits: int = 4
    target: str | None = None
    teachers: Sequence[str] = ()
    data: Path | None = None
    epochs: int | None = None


@dataclass
class Findings:
    """What the student's config is written from.

    Attributes:
        cfg (Config): The float detector's config.
        parts (Sequence[Part]): What is wrapped.
        probe (FloatProbe): Of the float detector.
        quant (dict): The bit policy.
        checkpoint (str, optional): The float detector's weights.
        teachers (Sequence[Teaching]): May be empty.
        choice (Choice, optional): The KD heads, if there are teachers.
        data (DataFolder, optional): Instead of the config's data.
    """

    cfg: Any
    parts: Sequence[Part]
    probe: FloatProbe
    quant: dict[str, Any]
    checkpoint: str | None
    teachers: Sequence[Teaching]
    choice: Choice | None
    data: DataFolder | None


def command(request: Request) -> str:
    """The command that asks for the same."""
    words = ['mmgor', 'convert', request.config]
    if request.checkpoint is not None:
        words.append(request.checkpoint)
    words += ['--w', str(request.w_bits), '--a', str(request.a_bits)]
    if request.target is not None:
        words += ['--target', request.target]
    for teacher in request.teachers:
        words += ['--teacher', teacher]
    if request.data is not None:
        words += ['--data', str(request.data)]
    if request.epochs is not None:
        words += ['--epochs', str(request.epochs)]
    return shlex.join([*words, '--out', str(request.out)])
