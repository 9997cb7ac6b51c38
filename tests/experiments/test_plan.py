"""Plan files: the keys they may hold, and messages about the others."""

import json

import pytest
import yaml

from experiments.plan import read_plan
from experiments.plan_file import UniqueKeysLoader, option_values
from mmgor.datasets.data_folder import read_data_folder
from tests.support.experiments import Bench, write_data


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_plan_as_it_is_written(bench):
    bench.content.update(threads=4)
    bench.content['arms']['qat']['epochs'] = None
    plan = bench.plan()
    assert (plan.seeds, plan.workers, plan.threads) == ((0, 1), 2, 4)
    # mmdet numbers labels in the order of getCatIds, which is the file's.
    data = plan.data['cells']
    assert (data.classes, data.side) == (('b', 'a'), 48)
    assert plan.results == bench.results
    assert [arm.once for arm in plan.arms.values()] == [True] + [False] * 3
    assert [a.epochs for a in plan.arms.values()] == [3, 3, None, 3]
    assert plan.arms['taught'].needs == ('float', 'teacher')


def test_folders_from_the_command_line(bench, tmp_path):
    bench.content['data'] = dict(cells=None)
    with pytest.raises(ValueError, match='type --data cells=PATH'):
        bench.plan()
    other = write_data(tmp_path / 'other')
    assert bench.plan(data=dict(cells=other)).data['cells'].root == other
    with pytest.raises(ValueError, match=r"--data names \['cell'\]; the plan"):
        bench.plan(data=dict(cell=other))
    bench.content['weights'] = dict(zoo='gone.pth')
    with pytest.raises(FileNotFoundError, match="weights 'zoo' not found"):
        bench.plan(data=dict(cells=other))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(arm={}), "plan: Additional properties .*'arm' was unexpected"),
        (dict(seeds=[0, 0]), r'plan.seeds: \[0, 0\] has non-unique'),
        (dict(seeds=['0']), r"plan.seeds\[0\]: '0' is not of type 'integer'"),
        (dict(data={'a/b': 'x'}), "plan.data.*'a/b' does not match"),
        (dict(bits=dict(float={})), "bits 'float' are those of arms"),
        (dict(arms={}), 'plan.arms: {} '),
        (
            dict(teachers=dict(qat=dict(config='x'))),
            'both teachers and arms',
        ),
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
        (dict(bits=['W3']), r"names the bits \['W3'\]; the plan has \['W4'\]"),
        (dict(bits='W4'), r"plan.arms.qat.bits: 'W4' is not of type 'array'"),
        (
            dict(starts='float'),
            r"plan.arms.qat: .*'starts' was unexpected.*'start', 'teachers'\]",
        ),
        (dict(epochs=-1), 'plan.arms.qat.epochs: -1 is less than the minimum'),
        (dict(options=dict(a='(2,w)')), r"arm 'qat', a: expected a tuple"),
    ],
)
def test_arms_that_cannot_be(bench, change, message):
    bench.content['arms']['qat'].update(change)
    bench.content['arms']['taught']['start'] = 'qat'
    with pytest.raises(ValueError, match=message):
        bench.plan()


def test_files_that_are_not_plans(bench, tmp_path):
    bench.content['arms']['qat']['config'] = 'gone.py'
    with pytest.raises(FileNotFoundError, match="arm 'qat' not found: gone"):
        bench.plan()
    with pytest.raises(ValueError, match='expected a plan, a YAML file'):
        read_plan(tmp_path)
    (tmp_path / 'plan.yaml').write_text('a: [')
    with pytest.raises(ValueError, match='is not a YAML file'):
        read_plan(tmp_path / 'plan.yaml')
    (tmp_path / 'plan.yaml').write_text('a: 1\nb: 2\na: 3')
    with pytest.raises(ValueError, match="'a' stands twice; rename one"):
        read_plan(tmp_path / 'plan.yaml')


def test_a_plan_with_code(tmp_path):
    mark = tmp_path / 'ran'
    (tmp_path / 'plan.yaml').write_text(
        f'data: !!python/object/apply:pathlib.Path.touch [{mark}]'
    )
    with pytest.raises(ValueError, match='is not a YAML file'):
        read_plan(tmp_path / 'plan.yaml')
    assert not mark.exists()


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


def test_folders_that_are_not_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train\.json not found'):
        read_data_folder(tmp_path)
    root = write_data(tmp_path / 'cells')
    file = root / 'eval.json'
    file.write_text(file.read_text().replace('"a"', '"z"'))
    with pytest.raises(ValueError, match='the same categories'):
        read_data_folder(root)
    write_data(tmp_path / 'others')
    (tmp_path / 'others' / 'images' / 'x').unlink()
    with pytest.raises(FileNotFoundError, match='images/x not found'):
        read_data_folder(tmp_path / 'others')
    for key, part in (('name', 'categories'), ('file_name', 'images')):
        root = write_data(tmp_path / f'no_{key}')
        content = json.loads((root / 'train.json').read_text())
        del content[part][0][key]
        (root / 'train.json').write_text(json.dumps(content))
        with pytest.raises(
            ValueError, match=rf"train\.json: expected '{key}'"
        ):
            read_data_folder(root)
