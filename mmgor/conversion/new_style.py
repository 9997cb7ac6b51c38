"""New-style configs, in which types are classes.

mmengine lets no text config have one as its base. So a text copy is written
beside the student's config.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmgor.io.atomic_write import writing
from mmgor.io.config_output import check_output


def has_classes(value: Any) -> bool:
    """Whether a config has classes or functions in it, at any depth."""
    if isinstance(value, dict):
        return any(has_classes(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_classes(inner) for inner in value)
    return callable(value)


def copy_path(out: Path) -> Path:
    """Where the text copy of a student's base config is.

    Example:
        >>> copy_path(Path('configs/student.py')).as_posix()
        'configs/student_base.py'
    """
    return out.with_name(f'{out.stem}_base.py')


@contextmanager
def as_text(request: Any, cfg: Any) -> Iterator[Any]:
    """A request for the text copy, if the config is of the new style.

    The copy stays only if the block ends without an error.

    Args:
        request (Request): Its ``config`` is ``cfg``.
        cfg (Config): As it was read.

    Yields:
        Request: The same one for text configs.

    Raises:
        ValueError: If the copy would overwrite the config itself.
    """
    if not has_classes(cfg['model']):
        yield request
        return
    path = copy_path(request.out)
    check_output(path, cfg)
    kept = path.read_bytes() if path.is_file() else None
    with writing(path) as part:
        cfg.dump(part)
    try:
        yield replace(request, config=str(path))
    except BaseException:
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)
        raise
