"""Checks of Python and of the installed packages."""

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from mmgor.compat import REQUIREMENTS, installed_version

from .findings import ERROR, OK, WARNING, Finding

PYTHON = SpecifierSet('>=3.10,<3.13')
#: Extra of mmgor -> what it is for.
EXTRAS = {
    'deploy': 'export to ONNX Runtime and OpenVINO',
    'litert': 'export to LiteRT',
    'executorch': 'export to ExecuTorch',
    'ncnn': 'export to ncnn',
    'experiments': 'plans of experiments',
}


def environment_findings() -> Iterator[Finding]:
    """Python, the packages that mmgor needs, and its extras."""
    version = '.'.join(map(str, sys.version_info[:3]))
    fits = Version(version) in PYTHON
    yield Finding(
        OK if fits else WARNING,
        'Python',
        f'{version} (tested: {PYTHON})',
        '' if fits else 'make env PYTHON=python3.11',
    )
    # Importing mmgor has refused packages that do not fit.
    for package, (names, lowest, below) in REQUIREMENTS.items():
        found = installed_version(names)
        yield Finding(OK, package, f'{found} (needs >={lowest},<{below})')
    found = installed_version(('pycocotools',))
    yield Finding(
        OK if found else ERROR,
        'pycocotools',
        found or 'not installed; mmdet reads and evaluates COCO files with it',
        '' if found else 'pip install pycocotools',
    )
    yield from extra_findings(_requirements())


def _requirements() -> list[str]:
    """What mmgor's metadata ask for; [] if it is not installed but only on
    the path."""
    try:
        return metadata.requires('mmgor') or []
    except metadata.PackageNotFoundError:
        return []


def extra_findings(
    requirements: Iterable[str],
    lookup: Callable[[tuple[str, ...]], str | None] = installed_version,
) -> Iterator[Finding]:
    """Which of mmgor's extras can be used.

    Args:
        requirements (Iterable[str]): As in a package's metadata, such as
            ``onnx>=1.17; extra == "deploy"``.
        lookup (Callable): Maps distribution names to a version or None.
    """
    asked = [Requirement(text) for text in requirements]
    for extra, use in EXTRAS.items():
        mine = [
            each
            for each in asked
            if each.marker and each.marker.evaluate(dict(extra=extra))
        ]
        if not mine:
            continue
        have = {each.name: lookup((each.name,)) for each in mine}
        lacking = [name for name, version in have.items() if version is None]
        unfit = [
            f'{each.name} {have[each.name]} (needs {each.specifier})'
            for each in mine
            if (version := have[each.name])
            and not each.specifier.contains(version, prereleases=True)
        ]
        install = f'pip install "mmgor[{extra}]"'
        what = f'extra {extra} ({use})'
        if unfit:
            yield Finding(WARNING, what, ', '.join(unfit), install)
        elif lacking:
            text = f'not installed: {", ".join(lacking)}; {install}'
            yield Finding(OK, what, text)
        else:
            text = ', '.join(f'{name} {v}' for name, v in have.items())
            yield Finding(OK, what, text)


def build_mmcv() -> str:
    """What to type if an operator of mmcv does not run: it compiles the
    installed version again."""
    names = REQUIREMENTS['mmcv'][0]
    name = next((n for n in names if installed_version((n,))), names[0])
    version = installed_version((name,))
    return (
        'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps '
        f'--force-reinstall --no-cache-dir --no-binary {name} '
        f'{name}=={version}'
    )
