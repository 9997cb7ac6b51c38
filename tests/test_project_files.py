"""Files that other programs read agree with the project."""

import re
from pathlib import Path

import pytest
import yaml

import mmgor

ROOT = Path(__file__).resolve().parents[1]
YAML_FILES = [
    ROOT / 'CITATION.cff',
    ROOT / '.pre-commit-config.yaml',
    *(ROOT / '.github').rglob('*.yml'),
]


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize('path', YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_a_mapping(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_citation_has_the_version():
    assert read('CITATION.cff')['version'] == mmgor.__version__


def test_hooks_run_what_make_lint_runs():
    (repository,) = read('.pre-commit-config.yaml')['repos']
    assert repository['repo'] == 'local'  # needs no network
    names = {hook['name'] for hook in repository['hooks']}
    lint = (ROOT / 'Makefile').read_text().split('\nlint:')[1].split('\n\n')[0]
    assert names == {'ruff check', 'ruff format', 'mypy'}
    assert all(name in lint for name in names)


def test_the_workflow_calls_ci_run():
    (job,) = read('.github/workflows/ci.yml')['jobs'].values()
    assert dict(run='.ci/run') in job['steps']
    assert (ROOT / '.ci' / 'run').stat().st_mode & 0o111


def test_requirements_of_the_docs_are_the_extra():
    listed = (ROOT / 'requirements' / 'docs.txt').read_text().splitlines()
    listed = [line for line in listed if not line.startswith('#')]
    text = (ROOT / 'pyproject.toml').read_text()
    extra = re.search(r'^docs = \[(.*?)\]', text, re.MULTILINE | re.DOTALL)
    assert re.findall(r'"(.*?)"', extra[1]) == listed
