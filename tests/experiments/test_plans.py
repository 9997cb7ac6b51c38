"""The shipped plans and the demo's can be filled in, and their arms are
what their names say."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from experiments import REPOSITORY
from experiments.demo import (
    _SMOKE_SCENES,
    DATA_PLAN,
    SCENES_PLAN,
    TITLES,
    demo_plan,
    format_rows,
    model_size,
    parse_args,
)
from experiments.plan import read_plan
from experiments.plan_file import read_plan_file
from experiments.runs import build_runs
from experiments.training import write_run
from tests.support.experiments import Bench

PLANS = REPOSITORY / 'experiments' / 'plans'


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Runs of a shipped plan by its name."""
    monkeypatch.chdir(REPOSITORY)
    bench = Bench(tmp_path)
    annotations = (bench.folder / 'cells' / 'train.json').read_text()
    (bench.folder / 'cells' / 'teacher.json').write_text(annotations)

    def build(name):
        file = PLANS / f'{name}.yaml'
        content = yaml.safe_load(file.read_text())
        data = dict.fromkeys(content['data'], bench.folder / 'cells')
        weights = dict.fromkeys(
            content.get('weights', {}), tmp_path / 'good.pth'
        )
        return build_runs(read_plan(file, data, weights))

    return build


def weighting_of(arm):
    """From a name: fixed_3, gor_zero_sum."""
    if arm.startswith('fixed_'):
        weight = float(arm.removeprefix('fixed_'))
        return dict(type='FixedWeighting', kd_weight=weight)
    return dict(type='GoRWeighting', form=arm.removeprefix('gor_'))


def check_quantized(run):
    """Bits are those of the run's name; weights those of the arm's."""
    model, width = run.config['model'], int(run.key[2][1])
    for part in ('backbone', 'neck', 'bbox_head'):
        bits = model[part]['quant']
        assert (bits['w_bits'], bits['a_bits']) == (width, width)
    arm = run.key[1]
    for ending in ('_short_memory', '_long', '_compensated'):
        arm = arm.removesuffix(ending)
    if arm.startswith(('fixed_', 'gor_')):
        assert model['gor_weighting'] == weighting_of(arm)
    return model


@pytest.mark.slow
def test_screen(shipped):
    runs = shipped('bccd_screen')
    # Teachers and float; four arms at three bits; the arms in question at
    # two, with another AdamW and another start; other balancers; other
    # teachers and losses.
    assert len(runs) == (4 + 2) + 4 * 3 + 10 * 2 + 3 + 2 + 11 + (3 + 15)
    others, heads = set(), set()
    for run in runs:
        arm = run.key[1]
        betas = run.config['optim_wrapper']['optimizer'].get('betas')
        assert betas == ((0.9, 0.99) if 'short_memory' in arm else None)
        if run.key[2] == 'float':
            continue
        calibration = run.config['custom_hooks'][0]
        assert calibration.get('compensate_weights', False) is (
            'compensated' in arm
        )
        model = check_quantized(run)
        parents = {parent.key[1] for parent in run.parents}
        if arm in ('ptq', 'qat'):
            assert parents == {'float2' if arm == 'ptq' else 'float'}
            assert 'teachers' not in model
            continue
        source = arm.partition('from_')[2] or 'yolox'
        if arm in ('sqakd', 'kd_logits_features'):
            source = 'retinanet'
        every = {'retinanet', 'atss', 'yolox'}
        assert parents == {'float'} | (every if source == 'ekd' else {source})
        assert run.config['train_cfg']['max_epochs'] == 6
        if arm.startswith('kd_'):
            heads.add(repr(model['kd_heads']))
        kind = model['gor_weighting']['type']
        others.add(kind)
        named = arm.removesuffix('_short_memory').replace('_', '')
        if arm.startswith('stake'):
            assert kind == 'StakeWeighting'
        elif kind not in ('GoRWeighting', 'FixedWeighting'):
            assert kind.lower() == f'{named}weighting'
    assert len(others) == 3 + 12 and len(heads) == 14


def test_yolox(shipped):
    runs = shipped('coco_yolox')
    assert len(runs) == 3 * 15
    for run in runs:
        arm, model = run.key[1], check_quantized(run)
        epochs = run.config['train_cfg']['max_epochs']
        assert arm == 'six_bits' or epochs == (6 if '_long' in arm else 2)
        pipeline = run.config['train_dataloader']['dataset']['pipeline']
        assert pipeline[2]['scale'] == (256, 256)
        taught = arm not in ('six_bits', 'qat')
        assert taught is ('teachers' in model)
        if taught:
            assert model['teachers']['nano']['checkpoint'] == '<weights:yolox>'
        parents = [parent.key[1] for parent in run.parents]
        assert parents == ([] if arm == 'six_bits' else ['six_bits'])


def test_person(shipped):
    runs = shipped('person_retinanet')
    assert len(runs) == 8
    for run in runs:
        assert check_quantized(run)['bbox_head']['num_classes'] == 1
        for split, resize in (('train', 2), ('val', 1), ('test', 1)):
            dataset = run.config[f'{split}_dataloader']['dataset']
            assert dataset['metainfo']['classes'] == ['person']
            assert dataset['pipeline'][resize]['scale'] == (224, 224)


TEACHERS = {
    'qat': set(),
    'worse_3': {'worse'},
    'second_5': {'second'},
    'ekd_5': {'teacher', 'second'},
    'self_5': set(),  # but the float student
    'dlb_5': set(),
    'dlb_1': set(),
    'dlb_0': set(),
}


def test_power(shipped):
    runs = shipped('power')
    assert [run.key[1] for run in runs].count('fixed_3') == 2 * 20
    for run in runs:
        if run.key[2] == 'float':
            continue
        check_quantized(run)
        arm = run.key[1]
        parents = {parent.key[1] for parent in run.parents}
        taught = TEACHERS.get(arm, {'teacher'})
        assert parents == {'float'} | taught
        # As many steps, of as many images: half of DLB's are the last ones.
        share = 2 if arm.startswith('dlb') else 1
        assert run.config['train_cfg']['max_epochs'] == 4 / share
        assert run.config['train_dataloader']['batch_size'] == 8 / share
        if arm == 'qat':
            continue
        if arm.startswith('dlb'):
            model = run.config['model']
            assert model['kd_weight'] == float(arm.removeprefix('dlb_'))
            continue
        kind, _, rest = arm.removesuffix('_short_memory').partition('_')
        weighting = dict(run.config['model']['gor_weighting'])
        wanted = dict(
            gor=dict(type='GoRWeighting', form='ratio'),
            stake=dict(type='StakeWeighting', steps=200),
            momenta=dict(type='ApartWeighting', kd_weight=3),
        ).get(kind, dict(type='FixedWeighting', kd_weight=3))
        if kind in ('fixed', 'second', 'ekd', 'self'):
            wanted['kd_weight'] = float(rest)
        if kind == 'stake':
            wanted['first'], wanted['last'] = map(float, rest.split('_to_'))
        assert weighting == wanted
        cls = run.config['model']['kd_heads']['cls']
        assert (cls['type'] == 'PlacedScoreKDHead') is (kind == 'place')
        optimizer = run.config['optim_wrapper']['optimizer']
        memory = 0.97 if rest == 'longer' else 0.9
        if kind == 'momenta':
            assert optimizer['kd_beta'] == memory


def test_power_yolox(shipped):
    """One teacher is that of the other student."""
    runs = shipped('power_yolox')
    teacher, *others = (run for run in runs if run.key[2] == 'float')
    assert [run.key[1] for run in others] == ['nano', 'float']
    known = {run.hash for run in shipped('power')}
    assert teacher.key[1] == 'teacher' and teacher.hash in known
    for run in runs[3:]:
        model, config = check_quantized(run), run.config
        arm = run.key[1].removesuffix('_short_memory')
        parents = {parent.key[1] for parent in run.parents}
        betas = config['optim_wrapper']['optimizer'].get('betas')
        assert betas == (None if arm == run.key[1] else (0.9, 0.99))
        assert config['train_cfg']['max_epochs'] == 4
        fitted = config['custom_hooks'][0].get('compensate_weights', False)
        assert fitted is arm.startswith('fitted_')
        kept = [model[p]['norm_cfg']['type'] for p in ('backbone', 'neck')]
        assert kept == ['EvalBN' if fitted else 'BN'] * 2
        if arm.endswith('qat'):
            assert parents == {'float'} and model['type'] == 'YOLOX'
            continue
        source = dict(self='float', nano='nano').get(arm.split('_')[0])
        assert parents == {'float', source or 'teacher'}
        assert model['detector'] == 'YOLOX'
        moved = model['kd_heads']['cls']['type'] == 'HalfCellScoreKDHead'
        assert moved is arm.startswith('moved_')
        rest = re.sub('(fixed|nano|self|moved|fitted)_', '', arm)
        weighting = dict(model['gor_weighting'])
        if rest == 'gor':
            assert weighting == dict(type='GoRWeighting', form='ratio')
        elif rest.startswith('stake_'):
            ends = map(float, rest.removeprefix('stake_').split('_to_'))
            wanted = dict(zip(('first', 'last'), ends), steps=200)
            assert weighting == dict(wanted, type='StakeWeighting')
        else:
            assert weighting == weighting_of(f'fixed_{rest}')


def demo(tmp_path, *argv):
    """The demo's plan with all of its arms, and its runs by arm."""
    folder = Bench(tmp_path).folder / 'cells'
    arms = list(read_plan_file(DATA_PLAN)['arms'])
    args = ['--data', str(folder), '--work-dir', str(tmp_path / 'work')]
    plan = demo_plan(parse_args([*args, '--arms', *arms, *argv]))
    return plan, {run.key[1]: run for run in build_runs(plan)}


@pytest.mark.parametrize('pretrained', [False, True])
def test_demo_arms_are_fair(tmp_path, pretrained):
    """Same data, schedule and start for every student that continues."""
    weights = str(tmp_path / 'good.pth')
    argv = ['--teacher-backbone', weights, '--yolox-weights', weights]
    plan, runs = demo(tmp_path, '--epochs', '2', *(argv if pretrained else []))
    assert set(runs) == set(TITLES)
    start = runs['float'].config
    for name, arm in plan.arms.items():
        config = runs[name].config
        for key in ('train_cfg', 'param_scheduler', 'train_dataloader'):
            assert arm.once or config[key] == start[key]
        assert config['train_cfg']['max_epochs'] == 2
        assert (arm.start == 'float') is (not arm.once and name != 'float')
        assert bool(arm.teachers) is ('teachers' in config['model'])
    slot = 'mbv2' if pretrained else 'r18'
    for name in ('fixed', 'gor'):
        assert plan.arms[name].teachers == {slot: 'teacher'}
        assert list(runs[name].config['model']['teachers']) == [slot]
    backbone = runs['teacher'].config['model']['backbone']
    kind = 'MobileNetV2' if pretrained else 'ResNet'
    assert backbone['type'] == kind or not pretrained
    source = runs['yolox'].config.get('load_from')
    assert source == ('<weights:yolox>' if pretrained else None)
    assert list(runs['ekd'].config['model']['teachers']) == [
        *('retinanet', 'atss', 'yolox')
    ]


def test_demo_trains_the_chosen_arms_and_their_teachers(tmp_path):
    bench = Bench(tmp_path)
    for arms, expected in (
        (['qat'], ['teacher', 'float', 'qat']),
        (['from_atss'], ['atss', 'float', 'from_atss']),
    ):
        args = ['--data', str(bench.folder / 'cells'), '--arms', *arms]
        assert list(demo_plan(parse_args(args)).arms) == expected


def test_arms_of_scenes_are_fair(tmp_path, monkeypatch):
    """Only the teacher sees other scenes; all that continue do it alike."""
    monkeypatch.setattr('experiments.demo._SCENES', _SMOKE_SCENES)
    names = list(read_plan_file(SCENES_PLAN)['arms'])
    argv = ['--work-dir', str(tmp_path), '--arms', *names]
    runs = {run.key[1]: run for run in build_runs(demo_plan(parse_args(argv)))}
    assert set(runs) == {'teacher', *names} <= set(TITLES)
    for name, run in runs.items():
        loader = run.config['train_dataloader']
        file = 'teacher.json' if name == 'teacher' else 'train.json'
        assert loader['dataset']['ann_file'] == file
        assert loader['batch_size'] == 4
    float2 = runs.pop('float2')
    for name in ('qat', 'gor'):
        config = runs[name].config
        for key in ('train_cfg', 'param_scheduler', 'load_from'):
            assert config[key] == float2.config[key]
        optimizer = config['optim_wrapper']['optimizer']
        assert optimizer == float2.config['optim_wrapper']['optimizer']
    for argv in (
        ['--arms', 'ekd'],
        ['--teacher-backbone', str(tmp_path / 'weights.pth')],
    ):
        with pytest.raises(SystemExit):
            parse_args(argv)


@pytest.mark.parametrize('gpus, threads', [(0, 4), (2, 4), (16, 1)])
def test_demo_runs_share_all_cpus(tmp_path, monkeypatch, gpus, threads):
    monkeypatch.setattr('os.cpu_count', lambda: 8)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    assert demo(tmp_path)[0].threads == threads


def test_the_demo_s_table(tmp_path):
    plan, runs = demo(tmp_path)
    rows = [
        dict(
            title=TITLES[name],
            **model_size(Config.fromfile(write_run(runs[name], plan))),
            mAP=[38.0, 39.0, None],
            AP50=[None, None, None],
            F1=[50.0, 51.0, 52.0],
            score=[0.25, None, 0.25],
        )
        for name in ('float', 'gor')
    ]
    assert rows[0]['params'] == rows[1]['params']
    assert 6 < rows[0]['bytes'] / rows[1]['bytes'] < 8
    lines = format_rows(rows).splitlines()
    cells = [c.strip() for c in lines[3].strip('|').split('|')]
    expected = [TITLES['gor'], '38.5 +- 0.7', '-', '51.0 +- 1.0']
    assert cells[:6] == [*expected, '0.25 +- 0.00', 'W4A4']


def test_only_experiments_know_of_ray():
    """The package is installed without it."""
    for file in (REPOSITORY / 'mmgor').rglob('*.py'):
        text = Path(file).read_text()
        words = ('import ray', 'import experiments', 'from experiments')
        assert not any(word in text for word in words), file
