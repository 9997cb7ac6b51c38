"""Configs of runs, and the hash that tells a finished one."""

import shutil

import pytest
from mmengine.config import Config

from experiments.changes import check_unchanged
from experiments.records import append_record, read_records
from experiments.runs import build_runs, select_runs
from experiments.training import clear_folder, write_run
from tests.support.experiments import RUNS, Bench, record, write_data


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def names(runs):
    return [run.name.partition('/')[2] for run in runs]


def test_independent_runs_first_then_seed_by_seed(bench):
    runs = build_runs(bench.plan())
    assert names(runs) == RUNS
    # What is chosen brings what it needs.
    assert names(select_runs(runs, ['qat'])) == [
        *('float/float/seed0', 'float/float/seed1'),
        *('qat/W4/seed0', 'qat/W4/seed1'),
    ]
    assert names(select_runs(runs, None, ['float'])) == RUNS[:3]
    with pytest.raises(ValueError, match=r"no arm \['gor'\] in the plan"):
        select_runs(runs, ['gor'])
    with pytest.raises(ValueError, match='none of the arms'):
        select_runs(runs, ['qat'], ['float'])


def test_a_complete_config(bench):
    bench.content['arms']['taught']['options'] = {
        'model.backbone.quant.a_bits': 5,
        'train_dataloader.dataset.pipeline.2.scale': '(64,64)',
        'param_scheduler.0.T_max': 9,
    }
    plan = bench.plan()
    run = {run.name: run for run in build_runs(plan)}['cells/taught/W4/seed1']
    cfg = Config.fromfile(write_run(run, plan))
    runs, data = bench.runs_folder, bench.folder / 'cells'
    assert cfg.work_dir == str(runs / 'cells/taught/W4/seed1')
    assert cfg.load_from == str(runs / 'cells/float/float/seed1/epoch_3.pth')
    assert cfg.model.teachers.big == dict(
        config=str(runs / 'cells/teacher/float/seed0/config.py'),
        checkpoint=str(runs / 'cells/teacher/float/seed0/epoch_3.pth'),
        classes=['a'],
    )
    assert cfg.model.backbone.quant == dict(w_bits=4, a_bits=5)
    assert cfg.randomness.seed == 1
    assert cfg.val_evaluator.ann_file == f'{data}/eval.json'
    # The plan's options win over the data's image size and the epochs.
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (64, 64)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (48, 48)
    assert cfg.train_cfg == dict(max_epochs=3, val_interval=3)
    assert cfg.param_scheduler[0] == dict(
        type='CosineAnnealingLR', end=3, T_max=9
    )


def test_zero_epochs_calibrate_only(bench):
    bench.content['arms']['qat']['epochs'] = 0
    run = bench.runs()['qat/W4/seed0']
    assert run.checkpoint == 'epoch_0.pth'
    assert run.config['train_cfg'] == dict(
        type='CalibrationLoop', max_epochs=0
    )
    assert run.config['custom_hooks'] == [dict(type='OtherHook')]


@pytest.mark.parametrize(
    'arm, change, message',
    [
        ('qat', dict(bits=['float']), 'has no bits, but .* is quantized'),
        ('float', dict(bits=['W4']), 'bits W4, but .* is not quantized'),
        ('taught', dict(teachers=dict(bg='teacher')), "teachers has 'bg'"),
        ('qat', dict(options={'modle.a': 1}), "arm 'qat': .* no 'modle'"),
        ('qat', dict(options=dict(load_form='x')), "no 'load_form'"),
        (
            'qat',
            dict(options={'param_scheduler.9.T_max': 9}),
            "arm 'qat': .* does not take the options",
        ),
        ('qat', dict(options={'model.a': '<weights:b>'}), '<weights:b>; the'),
        ('qat', dict(options=dict(load_from='x')), 'both start and load_from'),
        ('qat', dict(options=dict(randomness=dict(seed=3))), 'use seeds'),
    ],
)
def test_arms_that_cannot_be_filled_in(bench, arm, change, message):
    bench.content['arms'][arm].update(change)
    with pytest.raises(ValueError, match=message):
        bench.runs()


def test_other_bits_of_an_arm_it_needs(bench):
    """The same bits if there are such, else the only ones."""
    bench.content['bits'].update(W6={}, W5={})
    arms = bench.content['arms']
    arms['taught'].update(start='qat')
    for bits, used in ((['W6', 'W4'], 'W4'), (['W6'], 'W6')):
        arms['qat']['bits'] = bits
        run = bench.runs()['taught/W4/seed0']
        assert {p.key[1:3] for p in run.parents} == {
            ('qat', used),
            ('teacher', 'float'),
        }
    arms['qat']['bits'] = ['W6', 'W5']
    with pytest.raises(ValueError, match="'taught' at W4 needs 'qat', which"):
        bench.runs()


def hashes(bench):
    return {name: run.hash for name, run in bench.runs().items()}


def changed(bench, before):
    return {
        n.split('/')[0] for n, h in hashes(bench).items() if h != before[n]
    }


def test_what_the_hash_is_of(bench, tmp_path):
    arms = bench.content['arms']
    weights = tmp_path / 'zoo.pth'
    weights.write_bytes(b'weights')
    bench.content['weights'] = dict(zoo=str(weights))
    arms['float']['options'] = dict(load_from='<weights:zoo>')
    before = hashes(bench)
    assert len(set(before.values())) == 7
    # Not of folders, nor of what does not change the training.
    other = Bench(tmp_path / 'elsewhere')
    shutil.copy(weights, other.folder / 'w.pth')
    other.content['weights'] = dict(zoo=str(other.folder / 'w.pth'))
    other.content['arms']['float']['options'] = dict(load_from='<weights:zoo>')
    other.content.update(workers=3, threads=2)
    assert hashes(other) == before
    arms['qat']['options'] = {'model.backbone.quant.a_bits': 3}
    assert changed(bench, before) == {'qat'}
    del arms['qat']['options']
    bench.behave('teacher', 'other')
    assert changed(bench, before) == {'teacher', 'taught'}
    del bench.content['teachers']['teacher']['options']
    weights.write_bytes(b'others')
    assert changed(bench, before) == {'float', 'qat', 'taught'}
    weights.write_bytes(b'weights')
    more = bench.folder / 'cells' / 'more.json'
    more.write_text('1')
    file = {'train_dataloader.dataset.ann_file': 'more.json'}
    bench.content['teachers']['teacher']['options'] = file
    with_more = hashes(bench)
    assert changed(bench, before) == {'teacher', 'taught'}
    more.write_text('2')
    assert changed(bench, with_more) == {'teacher', 'taught'}
    del bench.content['teachers']['teacher']['options']
    bench.content['data']['cells'] = str(write_data(tmp_path / 'new', 'x'))
    assert changed(bench, before) == {'teacher', 'float', 'qat', 'taught'}


def record_all(bench):
    """As if every run had been trained here."""
    plan = bench.plan()
    for run in build_runs(plan):
        write_run(run, plan)
        keys = dict(zip(('data', 'arm', 'bits', 'seed'), run.key))
        line = record(**keys, config_hash=run.hash, parents={})
        append_record(plan.results, line)


def check(bench):
    plan = bench.plan()
    check_unchanged(plan, build_runs(plan), read_records(plan.results))


def test_a_changed_config_is_refused(bench):
    record_all(bench)
    check(bench)
    old = hashes(bench)['qat/W4/seed0']
    bench.content['seeds'] = [2]  # recorded ones count, too
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3,
        'model.backbone.quant.w_bits': 2,
    }
    with pytest.raises(ValueError) as caught:
        check(bench)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        f'cells/qat/W4/seed0: {bench.results} has it with config_hash {old}'
    )
    assert lines[1:3] == [
        '  config.model.backbone.quant.a_bits: not set -> 3',
        '  config.model.backbone.quant.w_bits: 4 -> 2',
    ]
    assert lines[3].startswith(
        'Changed: cells/qat/W4/seed0, cells/qat/W4/seed1. If that is not'
    )
    shutil.rmtree(bench.runs_folder)
    with pytest.raises(ValueError, match='former config is not known here'):
        check(bench)


def test_a_folder_of_something_else_is_not_removed(tmp_path):
    folder = tmp_path / 'seed0'
    folder.mkdir()
    (folder / 'thesis.txt').touch()
    with pytest.raises(FileExistsError, match='not the folder of a run'):
        clear_folder(folder)
    (folder / 'hashed.json').touch()
    clear_folder(folder)
    assert not list(tmp_path.iterdir())
