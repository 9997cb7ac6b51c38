"""Plan files: what they may hold, and what is said of the rest."""

import pytest
import yaml
from ledger_tools import write_data

from mmgor.ledger.plan import read_plan
from mmgor.ledger.plan_values import UniqueKeysLoader, option_values

pytest_plugins = ['ledger_bench']


def test_a_plan_as_it_is_written(bench):
    bench.content.update(workers=2, threads=4)
    bench.content['arms']['qat']['epochs'] = 5
    plan = bench.plan()
    assert (plan.seeds, plan.workers, plan.threads) == ((0, 1), 2, 4)
    assert plan.data['cells'].classes == ('a', 'b')
    assert plan.runs_folder == bench.folder / 'results'
    assert list(plan.arms) == ['teacher', 'float', 'qat', 'taught']
    assert [arm.once for arm in plan.arms.values()] == [True] + [False] * 3
    assert [a.epochs for a in plan.arms.values()] == [3, 3, 5, 3]
    assert plan.arms['float'].bits == ('float',)
    assert plan.arms['taught'].needs == ('float', 'teacher')


def test_folders_from_the_command_line(bench, tmp_path):
    bench.content['data'] = dict(cells=None)
    with pytest.raises(ValueError, match='type --data cells=PATH'):
        bench.plan()
    other = write_data(tmp_path / 'other')
    plan = bench.plan(data=dict(cells=other))
    assert plan.data['cells'].root == other
    with pytest.raises(ValueError, match=r"--data names \['cell'\]; the plan"):
        bench.plan(data=dict(cell=other))
    bench.content['weights'] = dict(zoo='gone.pth')
    with pytest.raises(FileNotFoundError, match="weights 'zoo' not found"):
        bench.plan(data=dict(cells=other))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(arm={}), r"unknown \['arm'\]"),
        (dict(results='out.json'), 'results expected a .jsonl file'),
        (dict(seeds=[0, 0]), 'holds a value twice'),
        (dict(seeds=['0']), "a seed: expected a whole number .* got '0'"),
        (dict(workers=0), 'workers: expected a whole number of at least 1'),
        (dict(epochs=None), "epochs of arm 'teacher': expected a whole"),
        (dict(data={'a/b': 'x'}), "data 'a/b': expected a name of letters"),
        (dict(data={}), 'data: expected at least one folder'),
        (dict(data=dict(cells=5)), "data 'cells': expected a path, got 5"),
        (dict(weights=dict(w=5)), "weights 'w': expected a path, got 5"),
        (dict(bits=dict(float={})), "bits 'float' are those of arms"),
        (dict(results=None), 'results: expected a path, got None'),
        (dict(arms=[]), 'arms: expected a mapping'),
        (dict(arms={}), 'arms: expected at least one'),
        (dict(teachers=dict(qat=dict(config='x'))), 'both teachers and arms'),
    ],
)
def test_plans_that_cannot_be(bench, change, message):
    bench.content.update(change)
    with pytest.raises(ValueError, match=message):
        bench.plan()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(start='flaot'), r"'qat' needs 'flaot'; the plan has \['teacher"),
        (dict(start='taught'), 'qat -> taught -> qat'),
        (dict(start=['float']), "'qat' needs .* expected a name"),
        (dict(bits=['W3']), r"names the bits \['W3'\]; the plan has \['W4'\]"),
        (dict(option={}), r"arm 'qat': unknown \['option'\]"),
        (dict(epochs=-1), "epochs of arm 'qat'"),
        (dict(bits=[4, 'W4']), "bits of 'qat' 4: expected a name of letters"),
        (dict(bits='W4'), r"bits of 'qat': expected a list.*\[W4A4\]; got"),
        (dict(config=None), "config of arm 'qat': expected a path, got None"),
        (dict(options=dict(a='(2,w)')), r"arm 'qat', a: expected a tuple"),
    ],
)
def test_arms_that_cannot_be(bench, change, message):
    bench.content['arms']['qat'].update(change)
    bench.content['arms']['taught']['start'] = 'qat'
    with pytest.raises(ValueError, match=message):
        bench.plan()


def test_a_missing_config_is_named(bench):
    bench.content['arms']['qat']['config'] = 'gone.py'
    with pytest.raises(FileNotFoundError, match="arm 'qat' not found: gone"):
        bench.plan()


def test_a_file_that_is_no_yaml(tmp_path):
    with pytest.raises(FileNotFoundError, match='expected a plan, a YAML'):
        read_plan(tmp_path)
    (tmp_path / 'plan.yaml').write_text('a: [')
    with pytest.raises(ValueError, match='is no YAML file'):
        read_plan(tmp_path / 'plan.yaml')


@pytest.mark.parametrize('key', ['qat', 'taught'])
def test_a_name_twice_is_no_plan(bench, key):
    """YAML would take the last and lose the first."""
    bench.plan()
    file = bench.folder / 'plan.yaml'
    again = file.read_text().partition(f'  {key}:\n')[2].splitlines()[0]
    file.write_text(f'{file.read_text()}  {key}:\n{again}\n')
    with pytest.raises(ValueError, match=f"'{key}' stands twice; rename"):
        read_plan(file)


def test_merged_keys_may_be_set_anew():
    text = 'a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}'
    content = yaml.load(text, Loader=UniqueKeysLoader)
    assert content['c'] == dict(x=4, y=2)


def test_option_values():
    options = {'a.scale': '(256, 128)', 'b': [dict(c='text')], 'd': 0.001}
    assert option_values(options, 'x') == {
        'a.scale': (256, 128),
        'b': [dict(c='text')],
        'd': 0.001,
    }
    with pytest.raises(ValueError, match=r"arm, lr: '1e-3' is text in YAML"):
        option_values(dict(lr='1e-3'), 'arm')
