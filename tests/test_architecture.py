"""Who may import whom, read from the sources (docs/design.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmgor'
STANDARD = {'math', 'typing', 'collections'}
PARTS = {
    'quantization',
    'distillation',
    'weighting',
    'detectors',
    'hooks',
    'dry_run',
    'cli',
    'conversion',
    'bit_search',
    'training_report',
    'doctor',
    'synthesis',
}
FORBIDDEN = {
    'io': PARTS | {'dense_heads', 'datasets', 'deploy'},
    'dense_heads': PARTS | {'datasets', 'deploy'},
    'quantization': PARTS - {'quantization'} | {'dense_heads', 'deploy'},
    'distillation': PARTS - {'distillation'} | {'deploy'},
    'weighting': PARTS - {'weighting'} | {'dense_heads', 'deploy'},
    'detectors': PARTS - {'detectors', 'distillation', 'weighting'}
    | {'deploy'},
    'hooks': {
        'distillation',
        'detectors',
        'dry_run',
        'deploy',
        'cli',
        'conversion',
        'bit_search',
        'synthesis',
    },
    'bit_search': PARTS - {'bit_search', 'conversion', 'quantization', 'hooks'}
    | {'deploy'},
    'conversion': PARTS
    - {'conversion', 'quantization', 'distillation', 'hooks'}
    | {'deploy'},
    'dry_run': PARTS - {'dry_run', 'quantization', 'hooks'} | {'deploy'},
    'datasets': PARTS | {'dense_heads', 'deploy'},
    'deploy': PARTS - {'quantization'},
    # It reads teachers by attribute, as hooks do.
    'training_report': PARTS - {'training_report', 'quantization'},
    # It reads teachers by attribute, too.
    'doctor': PARTS - {'doctor', 'quantization'},
    'synthesis': PARTS - {'synthesis', 'quantization'}
    | {'dense_heads', 'datasets', 'deploy'},
    'pages': PARTS | {'io', 'dense_heads', 'datasets', 'deploy'},
}
FOLDERS = [
    PACKAGE,
    *(p for p in PACKAGE.rglob('*') if p.is_dir()),
]
MOST_FILES = 14
MOST_LINES = 400


def imports(path: Path) -> set[str]:
    """Absolute names of all that a module imports."""
    package = path.relative_to(ROOT).with_suffix('').parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            prefix = '.'.join(base) + '.' if node.level else ''
            stem = (prefix + (node.module or '')).rstrip('.')
            # `from mmgor import x` may name a module, too.
            names |= {stem, *(f'{stem}.{alias.name}' for alias in node.names)}
    return names


@pytest.mark.parametrize('part', FORBIDDEN)
def test_parts_keep_apart(part):
    for path in (PACKAGE / part).rglob('*.py'):
        parts = {
            name.split('.')[1]
            for name in imports(path)
            if name.startswith('mmgor.') and len(name.split('.')) > 1
        }
        assert not parts & FORBIDDEN[part], path


def test_only_the_hook_of_quantizers_knows_quantization():
    for path in (PACKAGE / 'hooks').glob('*.py'):
        knows = any('quantization' in name for name in imports(path))
        assert knows is (path.name == 'quant_calibration_hook.py'), path


def test_only_the_hook_of_the_game_knows_weighting():
    for path in (PACKAGE / 'hooks').glob('*.py'):
        knows = any('mmgor.weighting' in name for name in imports(path))
        assert knows is (path.name == 'gor_weight_hook.py'), path


def test_only_the_hook_of_reports_knows_the_report():
    for path in (PACKAGE / 'hooks').glob('*.py'):
        knows = any('training_report' in name for name in imports(path))
        assert knows is (path.name == 'report_hook.py'), path


@pytest.mark.parametrize(
    'path', [*PACKAGE.rglob('*functional.py')], ids=lambda path: path.parts[-2]
)
def test_functional_modules_know_torch_only(path):
    names = {name.split('.')[0] for name in imports(path)}
    assert names - STANDARD == {'torch'}


def test_the_table_of_targets_needs_no_torch():
    files = [PACKAGE / 'targets.py', PACKAGE / 'io' / 'config_values.py']
    names = {name.split('.')[0] for path in files for name in imports(path)}
    assert names <= STANDARD | {'dataclasses', 'difflib', 'numbers', 'mmgor'}


def test_registries_are_named_in_one_place():
    for path in PACKAGE.rglob('*.py'):
        if path.name != 'registry.py':
            assert 'mmdet.registry' not in imports(path), path


def test_libraries_of_backbones_are_imported_on_use():
    """mmgor is used without them."""
    libraries = {'timm', 'mmpretrain', 'transformers', 'torchvision'}
    for path in PACKAGE.rglob('*.py'):
        names = imports(path)
        found = libraries & {name.split('.')[0] for name in names}
        own = {'timm'} if path.name == 'timm_layers.py' else set()
        assert found == own, path
        assert not any(name.endswith('timm_layers') for name in names), path


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda path: path.name)
def test_folders_stay_small(folder):
    assert len([*folder.glob('*.py')]) <= MOST_FILES


def test_files_stay_readable():
    for path in [*PACKAGE.rglob('*.py'), *(ROOT / 'tools').glob('*.py')]:
        assert len(path.read_text().splitlines()) <= MOST_LINES, path
