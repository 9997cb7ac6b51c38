"""A folder named mmgor must not hide the installed package."""

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


def test_the_wheel_holds_the_package_alone(tmp_path):
    checkout = tmp_path / 'checkout'
    for folder in ('mmgor', 'experiments', 'tests'):
        (checkout / folder).mkdir(parents=True)
        (checkout / folder / '__init__.py').touch()
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, checkout)
    for name in ('version.py', 'py.typed'):
        shutil.copy(ROOT / 'mmgor' / name, checkout / 'mmgor')
    build = 'from setuptools.build_meta import build_wheel as build'
    run(f'{build}; build({str(tmp_path)!r})', checkout)
    (wheel,) = tmp_path.glob('*.whl')
    names = ZipFile(wheel).namelist()
    about = f'mmgor-{mmgor.__version__}.dist-info'
    assert {Path(name).parts[0] for name in names} == {'mmgor', about}
    assert 'mmgor/py.typed' in names
    lines = ZipFile(wheel).read(f'{about}/METADATA').decode().splitlines()
    assert f'Version: {mmgor.__version__}' in lines
    required = {
        line.removeprefix('Requires-Dist: ')
        for line in lines
        if line.startswith('Requires-Dist') and 'extra ==' not in line
    }
    assert required == {'numpy', 'matplotlib', 'packaging'}
