"""A plan that no longer fits its results is refused."""

import shutil
from hashlib import sha256

import pytest

from mmgor.ledger.changes import check_parents_same, check_unchanged
from mmgor.ledger.records import read_records
from mmgor.ledger.runs import build_runs

pytest_plugins = ['ledger_bench']


def test_a_changed_config_is_refused(bench):
    bench.train()
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3,
        'model.backbone.quant.w_bits': 2,
    }
    results = bench.folder / 'results.jsonl'
    plan = bench.plan()
    records = read_records(results)
    with pytest.raises(ValueError) as caught:
        check_unchanged(plan, records)
    old, new = bench.records(), bench.runs()
    assert str(caught.value) == (
        f'cells/qat/W4/seed0: {results} has it with config_hash '
        f'{old["qat/W4/seed0"].config_hash}, the plan now gives '
        f'{new["qat/W4/seed0"].hash}.\n'
        '  config.model.backbone.quant.a_bits: not set -> 3\n'
        '  config.model.backbone.quant.w_bits: 4 -> 2\n'
        '1 more changed: cells/qat/W4/seed1\n'
        "Rename ['qat'] in the plan to run them beside the old ones, or "
        f'remove their lines from {results} to run them again in their place.'
    )
    assert '--data' not in str(caught.value)
    with pytest.raises(ValueError, match='check --data, --weights') as e:
        bench.content['epochs'] = 7
        check_unchanged(bench.plan(), records)
    assert "Rename ['teacher', 'float', 'qat', 'taught'] in" in str(e.value)
    shutil.rmtree(bench.folder / 'results')
    with pytest.raises(ValueError, match='what changed is not known here'):
        check_unchanged(plan, records)
    check_unchanged(plan, records, ['taught'])


def only_a_change_of_qat_is_refused(bench, records):
    check_unchanged(bench.plan(), records)
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3
    }
    with pytest.raises(ValueError, match=r'^cells/qat/W4/seed0: .*has it'):
        check_unchanged(bench.plan(), records)


def test_seeds_that_the_plan_no_longer_has_count(bench):
    """Else the report would take two configs for seeds of one arm."""
    bench.train()
    bench.content['seeds'] = [2]
    records = bench.records_by_key()
    only_a_change_of_qat_is_refused(bench, records)


def test_bits_that_an_arm_no_longer_has_count(bench):
    """Else mAP against bits would draw two configs as one arm."""
    bench.train()
    bench.content['bits']['W5'] = {'model.backbone.quant.w_bits': 5}
    bench.content['arms']['qat']['bits'] = ['W5']
    records = bench.records_by_key()
    only_a_change_of_qat_is_refused(bench, records)
    # What started from these bits is compared with them, too.
    del bench.content['arms']['qat']['options']
    bench.content['arms']['taught'].update(bits=['W5'], start='qat')
    with pytest.raises(ValueError, match=r'^cells/taught/W4/seed0: .*has it'):
        check_unchanged(bench.plan(), records)
    bench.content['arms']['qat']['options'] = {
        'model.backbone.quant.a_bits': 3
    }
    # What W4 was is not known any more.
    bench.content['bits'].pop('W4')
    bench.content['arms']['taught']['bits'] = ['W5']
    check_unchanged(bench.plan(), records)


def test_a_chain_of_arms_whose_bits_were_trimmed(bench):
    """taught at W4 has learned from qat at W4, not from the only one left."""
    bench.content['bits']['W5'] = {'model.backbone.quant.w_bits': 5}
    arms = bench.content['arms']
    arms['taught']['start'] = 'qat'
    for name in ('qat', 'taught'):
        arms[name]['bits'] = ['W5', 'W4']
    bench.train()
    records = bench.records_by_key()
    for name in ('qat', 'taught'):
        arms[name]['bits'] = ['W5']
    check_unchanged(bench.plan(), records)
    arms['qat']['options'] = {'model.backbone.quant.a_bits': 3}
    with pytest.raises(ValueError, match=r'\n7 more changed: ') as caught:
        check_unchanged(bench.plan(), records)
    assert 'quant.a_bits: not set -> 3' in str(caught.value)


def test_the_change_is_told_where_it_is(bench):
    """Not at a student, whose line may stand first in joined results."""
    bench.train()
    bench.behave('teacher', 'other')
    records = dict(reversed(bench.records_by_key().items()))
    with pytest.raises(ValueError, match=r'^cells/teacher/float/seed0'):
        check_unchanged(bench.plan(), records)


def test_a_changed_teacher_changes_its_students(bench):
    bench.train()
    bench.behave('teacher', 'other')
    with pytest.raises(ValueError, match='not set -> "other"') as e:
        check_unchanged(bench.plan(), bench.records_by_key())
    assert '2 more changed: cells/taught/W4/seed0, cells/taught/W4/seed1' in (
        str(e.value)
    )


def test_a_parent_trained_again_has_stale_students(bench):
    """Under the same config: its hash does not tell, its weights do."""
    bench.content['seeds'] = [0]
    bench.train()
    plan = bench.plan()
    records, folder = bench.records_by_key(), plan.runs_folder
    check_parents_same(build_runs(plan), records, folder)
    file = folder / 'cells/float/float/seed0/epoch_3.pth'
    shutil.copy(bench.folder / 'diverged.pth', file)
    old, new = (
        sha256((bench.folder / name).read_bytes()).hexdigest()[:12]
        for name in ('good.pth', 'diverged.pth')
    )
    with pytest.raises(ValueError) as caught:
        check_parents_same(build_runs(plan), records, folder)
    assert str(caught.value) == (
        f'cells/qat/W4/seed0 is recorded with the weights {old} of '
        f'cells/float/float/seed0, which now has {new}. Remove the lines of '
        'cells/qat/W4/seed0, cells/taught/W4/seed0 from the results to run '
        'them again, or put the old epoch_3.pth back.'
    )
    # Not here: trained elsewhere.
    shutil.rmtree(folder / 'cells/qat')
    shutil.rmtree(folder / 'cells/taught')
    check_parents_same(build_runs(plan), records, folder)
