"""Which configs of mmdet's wheel a run over its model zoo converts."""

from collections.abc import Iterator
from pathlib import Path

import mmdet

ROOT = Path(mmdet.__file__).parent / '.mim' / 'configs'
# Small networks first: the structure is what is tried.
_SIZES = ('nano', 'tiny', 'r18', 'r50', 'd53', 'vgg', 'swin-t', 'pvt-t')


def folders() -> list[Path]:
    """One folder per algorithm."""
    found = (path for path in ROOT.iterdir() if path.is_dir())
    return sorted(path for path in found if path.name != '_base_')


def configs_of(folder: Path, most: int) -> Iterator[str]:
    """Names of the smallest configs of a folder, such as
    'atss/atss_r50_fpn_1x_coco.py'.

    Args:
        folder (Path): One of :func:`folders`.
        most (int): Number of configs.
    """
    files = sorted(folder.glob('*.py'), key=lambda path: _key(path.stem))
    for path in files[:most]:
        yield path.relative_to(ROOT).as_posix()


def address(name: str) -> str:
    """What a command calls a config: 'mmdet::...', or its path if mmengine
    can't read a folder's name ('gn+ws', 'legacy_1.x')."""
    folder = name.partition('/')[0]
    return f'mmdet::{name}' if folder.isidentifier() else str(ROOT / name)


def _key(stem: str) -> tuple[int, int, str]:
    sizes = [i for i, size in enumerate(_SIZES) if size in stem]
    return (min(sizes, default=len(_SIZES)), len(stem), stem)
