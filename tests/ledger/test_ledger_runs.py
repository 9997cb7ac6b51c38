"""Configs of runs, and the hash that tells a finished one."""

import shutil

import pytest
from ledger_tools import Bench, write_data
from mmengine.config import Config

from mmgor.ledger.runs import build_runs, write_run

pytest_plugins = ['ledger_bench']


def test_independent_runs_first_then_seed_by_seed(bench):
    assert list(bench.runs()) == [
        'teacher/float/seed0',
        'float/float/seed0',
        'float/float/seed1',
        'qat/W4/seed0',
        'taught/W4/seed0',
        'qat/W4/seed1',
        'taught/W4/seed1',
    ]


def test_a_complete_config(bench):
    bench.content['arms']['taught']['options'] = {
        'model.backbone.quant.a_bits': 5,
        'train_dataloader.dataset.pipeline.2.scale': '(64,64)',
    }
    plan = bench.plan()
    run = {run.name: run for run in build_runs(plan)}['cells/taught/W4/seed1']
    cfg = Config.fromfile(write_run(run, plan))
    runs, data = bench.folder / 'results', bench.folder / 'cells'
    assert cfg.work_dir == str(runs / 'cells/taught/W4/seed1')
    assert cfg.load_from == str(runs / 'cells/float/float/seed1/epoch_3.pth')
    assert cfg.model.teachers.big == dict(
        config=str(runs / 'cells/teacher/float/seed0/config.py'),
        checkpoint=str(runs / 'cells/teacher/float/seed0/epoch_3.pth'),
        classes=['a'],
    )
    assert cfg.model.backbone.quant == dict(w_bits=4, a_bits=5)
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.randomness.seed == 1
    assert cfg.val_evaluator.ann_file == f'{data}/eval.json'
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.data_root == f'{data}/'
        assert dataset.metainfo.classes == ('a', 'b')
    # The plan's option wins over the size of the data's pictures.
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 64)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (48, 48)
    assert cfg.train_cfg == dict(max_epochs=3, val_interval=3)
    assert cfg.param_scheduler[0].T_max == 3


@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_zero_epochs_calibrate_only(scope, bench):
    for config in (bench.folder / 'configs').glob('*.py'):
        text = config.read_text()
        for name in ('Resize', 'EMAHook'):
            text = text.replace(f"'{name}'", f"'{scope}{name}'")
        config.write_text(text)
    bench.content['arms']['qat']['epochs'] = 0
    run = bench.runs()['qat/W4/seed0']
    assert run.checkpoint == 'epoch_0.pth'
    assert run.config['train_cfg'] == dict(
        type='CalibrationLoop', max_epochs=0
    )
    imports = run.config['custom_imports']['imports']
    assert imports == ['mmgor.ledger.calibration_loop']
    assert run.config['custom_hooks'] == [dict(type='OtherHook')]


def hashes(bench):
    return {name: run.hash for name, run in bench.runs().items()}


def changed(bench, before):
    return {
        n.split('/')[0] for n, h in hashes(bench).items() if h != before[n]
    }


def test_the_hash_does_not_depend_on_folders(bench, tmp_path):
    bench.content['weights'] = dict(zoo=str(tmp_path / 'zoo.pth'))
    bench.content['arms']['float']['options'] = dict(load_from='<weights:zoo>')
    (tmp_path / 'zoo.pth').write_bytes(b'weights')
    other = Bench(tmp_path / 'elsewhere' / 'deeper')
    other.content['weights'] = dict(zoo=str(other.folder / 'w.pth'))
    other.content['arms']['float']['options'] = dict(load_from='<weights:zoo>')
    other.content.update(workers=3, threads=2)
    shutil.copy(tmp_path / 'zoo.pth', other.folder / 'w.pth')
    assert hashes(bench) == hashes(other)
    assert len(set(hashes(bench).values())) == 7


def test_what_the_hash_is_of(bench, tmp_path):
    before = hashes(bench)
    arms = bench.content['arms']
    arms['qat']['options'] = {'model.backbone.quant.a_bits': 3}
    assert changed(bench, before) == {'qat'}
    del arms['qat']['options']
    arms['float']['epochs'] = 4
    assert changed(bench, before) == {'float', 'qat', 'taught'}
    del arms['float']['epochs']
    bench.behave('teacher', 'other')
    assert changed(bench, before) == {'teacher', 'taught'}
    del bench.content['teachers']['teacher']['options']
    assert changed(bench, before) == set()
    bench.content['data']['cells'] = str(write_data(tmp_path / 'new', 'x'))
    assert changed(bench, before) == {'teacher', 'float', 'qat', 'taught'}


def test_the_hash_knows_what_is_in_weight_files(bench, tmp_path):
    (tmp_path / 'zoo.pth').write_bytes(b'weights')
    bench.content['weights'] = dict(zoo=str(tmp_path / 'zoo.pth'))
    bench.content['teachers']['teacher']['options'] = dict(
        load_from='<weights:zoo>'
    )
    before = hashes(bench)
    (tmp_path / 'zoo.pth').write_bytes(b'others')
    assert changed(bench, before) == {'teacher', 'taught'}


def test_other_bits_of_an_arm_it_needs(bench):
    """The same bits if there are such, else the only ones."""
    bench.content['bits']['W6'] = {}
    arms = bench.content['arms']
    arms['qat']['bits'] = ['W6', 'W4']
    arms['taught'].update(start='qat')
    run = bench.runs()['taught/W4/seed0']
    assert {parent.key[1:3] for parent in run.parents} == {
        ('qat', 'W4'),
        ('teacher', 'float'),
    }
    arms['qat']['bits'] = ['W6']
    run = bench.runs()['taught/W4/seed0']
    assert run.config['load_from'] == '<run:cells/qat/W6/seed0>/epoch_3.pth'
    bench.content['bits']['W5'] = {}
    arms['qat']['bits'] = ['W6', 'W5']
    with pytest.raises(ValueError, match="'taught' at W4 needs 'qat', which"):
        bench.runs()


@pytest.mark.parametrize(
    'arm, change, message',
    [
        ('qat', dict(bits=['float']), 'names no bits, but .* is quantized'),
        ('float', dict(bits=['W4']), 'bits W4, but .* is not quantized'),
        ('taught', dict(teachers=dict(bg='teacher')), "fills teacher 'bg'"),
        ('qat', dict(options={'modle.a': 1}), "no 'modle'"),
        ('qat', dict(options=dict(load_form='x')), "no 'load_form'"),
        (
            'qat',
            dict(options={'train_cfg.max_epochs': 9}),
            "'train_cfg.max_epochs' is filled in from the plan; use epochs",
        ),
        (
            'qat',
            dict(options={'param_scheduler.0.T_max': 9}),
            "'param_scheduler.0.T_max' is filled in from the plan; use epochs",
        ),
        (
            'qat',
            dict(options={'randomness': {'seed': 7}}),
            "'randomness.seed' is filled in from the plan; use seeds there",
        ),
        (
            'taught',
            dict(options={'model.teachers.big': {'checkpoint': 'x.pth'}}),
            "'model.teachers.big.checkpoint' is filled .*; use teachers",
        ),
        (
            'qat',
            dict(options={'param_scheduler.9.T_max': 9}),
            "arm 'qat': .* does not take the options",
        ),
        (
            'qat',
            dict(options={'model.a': '<weights:b>'}),
            'unknown <weights:b>',
        ),
        ('qat', dict(options=dict(load_from='x')), 'both start and the opt'),
        (
            'qat',
            dict(options={'param_scheduler': [dict(type='MultiStepLR')]}),
            'a cosine with T_max is expected',
        ),
    ],
)
def test_arms_that_cannot_be_filled_in(bench, arm, change, message):
    bench.content['arms'][arm].update(change)
    with pytest.raises(ValueError, match=message):
        bench.runs()


def test_a_teacher_that_needs_a_seed_that_is_not_run(bench):
    bench.content['seeds'] = [1]
    bench.content['teachers']['teacher']['start'] = 'float'
    with pytest.raises(ValueError, match="'float' with seed 0, which is not"):
        bench.runs()


def test_configs_of_another_kind_are_refused(bench):
    config = bench.folder / 'configs' / 'float.py'
    text = config.read_text()
    config.write_text(text.replace("dict(type='Load'), ", ''))
    with pytest.raises(ValueError, match='expected Resize as step 2'):
        bench.runs()
    config.write_text(text.replace('bbox_head', 'roi_head'))
    with pytest.raises(ValueError, match=r'expected model\.bbox_head'):
        bench.runs()
