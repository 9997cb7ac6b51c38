"""All checks, in the order in which a training needs their results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgor.io.config_reader import read_config

from .data import data_findings
from .disk import disk_finding
from .environment import environment_findings
from .findings import ERROR, OK, Finding, guarded
from .model import build_model, model_findings
from .operations import operation_findings


def examine(config: str | None) -> Iterator[Finding]:
    """Check the environment and a config.

    Args:
        config (str, optional): A config file, or a name such as
            'mmdet::atss/atss_r50_fpn_1x_coco.py'. None: the environment
            only.

    Yields:
        Finding: Each as soon as it is known.
    """
    yield from guarded('packages', environment_findings)
    yield from guarded('operators', operation_findings)
    if config is None:
        return
    try:
        cfg = read_config(config)
    except (OSError, RuntimeError, ValueError) as error:
        yield Finding(ERROR, 'config', str(error))
        return
    yield Finding(OK, 'config', f'{config} can be read')
    model, fault = _built(cfg)
    if fault is not None:
        yield fault
    else:
        yield from guarded('model', lambda: model_findings(cfg, model))
    yield from guarded('data', lambda: data_findings(cfg, model))
    if model is not None:
        folder = cfg.get('work_dir') or Path('work_dirs') / Path(config).stem
        yield from guarded(
            'disk', lambda: [disk_finding(cfg, model, Path(folder))]
        )


def _built(cfg: Config) -> tuple[Any, Finding | None]:
    """The model, or None and what is wrong with its config."""
    try:
        return build_model(cfg), None
    except Exception as error:  # a stock class may raise anything
        text = f'it does not build ({type(error).__name__}: {error})'
        mend = 'correct model=dict(...) as the message says'
        return None, Finding(ERROR, 'model', text, mend)
