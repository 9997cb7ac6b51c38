"""What is installed, and what must not hide it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import mmgor

ROOT = Path(__file__).resolve().parents[1]


def run(code, folder):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=folder,
        env={},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_editable_install_seen_from_above_the_checkout(tmp_path):
    checkout = tmp_path / 'mmgor'
    (checkout / 'mmgor' / 'hooks').mkdir(parents=True)
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, checkout)
    shutil.copy(ROOT / 'mmgor' / 'version.py', checkout / 'mmgor')
    for folder in (checkout / 'mmgor', checkout / 'mmgor' / 'hooks'):
        (folder / '__init__.py').touch()
    build = 'from setuptools.build_meta import build_editable as build'
    site = tmp_path / 'site'
    run(f'{build}; build({str(tmp_path)!r})', checkout)
    (wheel,) = tmp_path.glob('*.whl')
    ZipFile(wheel).extractall(site)
    use = (
        'import site, sys; '
        # Hide this environment's own install.
        'sys.meta_path[:] = [f for f in sys.meta_path '
        "if 'editable' not in getattr(f, '__module__', '')]; "
        f'sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; '
        f'site.addsitedir({str(site)!r}); '
        'import mmgor; print(mmgor.__file__)'
    )
    assert run(use, tmp_path) == str(checkout / 'mmgor' / '__init__.py')


@pytest.mark.slow
def test_tools_take_no_folder_for_the_package(tmp_path):
    (tmp_path / 'mmgor').mkdir()
    tools = str(ROOT / 'tools')
    code = (
        f'import sys; sys.path[:] = ["", *sys.path, {tools!r}]; '
        'sys.meta_path[:] = [f for f in sys.meta_path '
        "if 'editable' not in getattr(f, '__module__', '')]; "
        f'sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; '
        'import _common; print(_common.mmgor.__file__)'
    )
    assert run(code, tmp_path) == str(ROOT / 'mmgor' / '__init__.py')


def built_wheel(checkout, folder):
    build = 'from setuptools.build_meta import build_wheel as build'
    run(f'{build}; build({str(folder)!r})', checkout)
    (wheel,) = folder.glob('*.whl')
    return ZipFile(wheel)


@pytest.fixture
def checkout(tmp_path):
    """All that a wheel is made of."""
    checkout = tmp_path / 'checkout'
    checkout.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, checkout)
    unwanted = shutil.ignore_patterns('__pycache__')
    for name in ('mmgor', 'configs', 'tools'):
        shutil.copytree(
            *(ROOT / name, checkout / name), symlinks=True, ignore=unwanted
        )
    return checkout


def test_the_wheel_holds_the_package_its_configs_and_tools(checkout, tmp_path):
    for folder in ('experiments', 'tests', 'tools/__pycache__'):
        (checkout / folder).mkdir()
        (checkout / folder / '__init__.py').touch()
    wheel = built_wheel(checkout, tmp_path)
    names = wheel.namelist()
    about = f'mmgor-{mmgor.__version__}.dist-info'
    assert {Path(name).parts[0] for name in names} == {'mmgor', about}
    assert 'mmgor/py.typed' in names
    inside = {name for name in names if name.startswith('mmgor/.mim/')}
    tools = [path for path in (ROOT / 'tools').iterdir() if path.is_file()]
    configs = [*(ROOT / 'configs').rglob('*.py')]
    assert inside == {
        f'mmgor/.mim/{path}'
        for path in (
            'model-index.yml',
            *(path.relative_to(ROOT) for path in tools + configs),
        )
    }
    lines = wheel.read(f'{about}/METADATA').decode().splitlines()
    assert f'Version: {mmgor.__version__}' in lines
    required = {
        line.removeprefix('Requires-Dist: ')
        for line in lines
        if line.startswith('Requires-Dist') and 'extra ==' not in line
    }
    assert required == {'numpy', 'matplotlib', 'packaging'}


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder(checkout, tmp_path):
    """Its tools run, and configs start from the shipped ones."""
    site = tmp_path / 'site'
    built_wheel(checkout, tmp_path).extractall(site)
    folder = tmp_path / 'empty'
    folder.mkdir()
    (folder / 'own.py').write_text(
        "_base_ = 'mmgor::gor/retinanet_r18_w4_from_r101.py'\n"
        'model = dict(bbox_head=dict(num_classes=3))\n'
    )
    words = 'cost own.py --size 64 64'
    done = subprocess.run(
        [sys.executable, '-m', 'mmgor', *words.split()],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Nine anchors, three classes.
    assert re.search(r'retina_cls .* 27x256x3x3 ', done.stdout)
