"""The documentation runs, its configs build, and its paths exist."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmgor.hooks.optimizer_groups import exempt_from_decay
from mmgor.quantization import quantized_layers
from mmgor.registry import HOOKS, MODELS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'docs' / 'results').glob('*.md')),
]
# A fence may follow the heading of a walk-through: each starts anew.
FENCE = re.compile(r'(<!-- runnable -->\n)?```python\n(.*?)```', re.DOTALL)
SECTION = re.compile(r'^(?=## )', re.MULTILINE)
PATH = re.compile(
    r'`((?:mmgor|tests|tools|benchmarks|configs|docs|experiments|notebooks'
    r'|scripts)'
    r'/[\w./-]*)'
)
# By builds, and by the reader of a walk-through.
WRITTEN = {
    'docs/_build',
    'mmgor/quantization/quantizers/power_of_two.py',
    'mmgor/weighting/balancers/equal_size.py',
    'tests/quantization/quantizers/test_power_of_two.py',
    'tests/weighting/balancers/test_equal_size.py',
}


def runnable(page: Path) -> list[tuple[str, list[str]]]:
    """The runnable blocks of each section of a page."""
    sections = []
    for section in SECTION.split(page.read_text()):
        blocks = [code for mark, code in FENCE.findall(section) if mark]
        if blocks:
            sections.append((section.splitlines()[0], blocks))
    return sections


RUNS = [
    pytest.param(blocks, id=f'{page.stem}: {title}')
    for page in PAGES
    for title, blocks in runnable(page)
]
CONFIGS = [
    pytest.param(code, id=f'{page.stem}-{number}')
    for page in PAGES
    for number, (_, code) in enumerate(FENCE.findall(page.read_text()))
    if code.startswith('_base_ =')
]


def test_there_are_blocks_and_configs():
    assert len(RUNS) >= 6
    assert len(CONFIGS) >= 3


@pytest.fixture
def registered_as_before():
    """Classes of the walk-throughs leave the registries again."""
    before = dict(MODELS._module_dict)
    yield
    MODELS._module_dict.clear()
    MODELS._module_dict.update(before)


@pytest.mark.parametrize('blocks', RUNS)
def test_a_runnable_block_runs(
    blocks, tmp_path, monkeypatch, registered_as_before
):
    monkeypatch.chdir(tmp_path)
    names = {'__name__': 'documented'}
    for block in blocks:
        exec(compile(block, '<documentation>', 'exec'), names)


@pytest.mark.parametrize('code', CONFIGS)
def test_a_config_builds(code, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(code.replace("'configs/", f"'{ROOT}/configs/"))
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    policy = cfg.model.backbone.quant
    bits = {
        (layer.weight_quantizer.bits, layer.input_quantizer.bits)
        for layer in quantized_layers(model).values()
    }
    assert bits == {(policy.w_bits, policy.a_bits), (8, 8)}
    assert model.teachers.names() == list(cfg.model.teachers)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    learned = {
        name: parameter
        for name, parameter in model.named_parameters()
        if '_quantizer.' in name or name.startswith('gor_weighting.')
        if parameter.requires_grad
    }
    exempt_from_decay(optimizer, learned, 'step sizes and thetas')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_named_paths_exist(page):
    named = set(PATH.findall(page.read_text())) - WRITTEN
    assert {n for n in named if not (ROOT / n).exists()} == set()


# `Name` or `Class.method`, then the file that defines it in parentheses.
DEFINED = re.compile(r'`([\w.]+)`\s\(`(mmgor/[\w/]+\.py)`\)')


@pytest.mark.parametrize(
    'name, path',
    DEFINED.findall((ROOT / 'docs' / 'contributing.md').read_text()),
)
def test_the_newcomers_walk_is_true(name, path):
    text = (ROOT / path).read_text()
    for part in name.split('.'):
        assert re.search(rf'^ *(class|def) {part}\b', text, re.MULTILINE), part


MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in sorted((ROOT / 'mmgor').rglob('*.py'))
    if '>>> ' in path.read_text()
]


@pytest.mark.parametrize('module', MODULES)
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 150
