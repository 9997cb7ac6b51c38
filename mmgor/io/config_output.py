"""Checks where a config is going to be written, before the work starts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def check_output(
    out: Path, cfg: Any, others: Iterable[str | Path] = ()
) -> None:
    """Make sure that a config can be written to ``out``, and that it takes the
    place of no file that it needs.

    Args:
        out (Path): The config to write.
        cfg (Config): The config that it will have as its base.
        others (Iterable[str | Path]): Further files that must stay, such as
            the configs of teachers.

    Raises:
        ValueError: If it is no .py file, or one that was read.
    """
    if out.suffix != '.py' or out.is_dir():
        raise ValueError(
            f'--out expected a file such as student.py, got {out}.'
        )
    for path in (*files_read(cfg), *others):
        if Path(path).resolve() == out.resolve():
            raise ValueError(
                f'--out {out} would overwrite a config that the new one is '
                'based on; expected another name.'
            )


def files_read(cfg: Any) -> list[str]:
    """The file of a config, and those that it has as ``_base_``.

    Args:
        cfg (Config): As it was read from a file.
    """
    # mmengine joins the sources and puts the name of each file above it.
    named = {line for line in cfg.text.splitlines() if line.endswith('.py')}
    own = [cfg.filename] if cfg.filename else []
    return [*own, *(name for name in named if Path(name).is_file())]
