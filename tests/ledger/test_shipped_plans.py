"""The plans in docs/plans can be filled in and say what their names say."""

from pathlib import Path

import pytest
import yaml

from mmgor.ledger.plan import read_plan
from mmgor.ledger.runs import build_runs

pytest_plugins = ['ledger_bench']
PLANS = Path(__file__).resolve().parents[2] / 'docs' / 'plans'


@pytest.fixture
def shipped(bench, monkeypatch):
    """Runs of a shipped plan by its name."""
    monkeypatch.chdir(PLANS.parents[1])
    weights = bench.folder / 'w.pth'
    weights.touch()

    def build(name):
        file = PLANS / f'{name}.yaml'
        content = yaml.safe_load(file.read_text())
        return build_runs(
            read_plan(
                file,
                dict.fromkeys(content['data'], bench.folder / 'cells'),
                dict.fromkeys(content['weights'], weights),
            )
        )

    return build


def weighting_of(arm):
    """From a name: fixed_3, gor_zero_sum."""
    if arm.startswith('fixed_'):
        weight = float(arm.removeprefix('fixed_'))
        return dict(type='FixedWeighting', kd_weight=weight)
    return dict(type='GoRWeighting', form=arm.removeprefix('gor_'))


def test_screen(shipped):
    """Every arm of it can be filled in, and differs where its name says."""
    runs = shipped('bccd_screen')
    # Teachers and float; four arms at three bits; the arms in question at
    # two, and with another AdamW; other balancers; other teachers and losses.
    assert len(runs) == (4 + 2) + 4 * 3 + 9 * 2 + 3 + 11 + (3 + 15)
    seen, heads = [], []
    for run in runs:
        _, arm, bits, _ = run.key
        betas = run.config['optim_wrapper']['optimizer'].get('betas')
        assert betas == ((0.9, 0.99) if 'short_memory' in arm else None)
        arm = arm.removesuffix('_short_memory')
        if bits == 'float':
            continue
        parents = {parent.key[1] for parent in run.parents}
        quant = run.config['model']['neck']['quant']
        width = int(bits[1])
        assert quant == dict(w_bits=width, a_bits=width)
        model = run.config['model']
        kind = model.get('gor_weighting')
        if arm in ('ptq', 'qat'):
            assert parents == {'float2' if arm == 'ptq' else 'float'}
            assert kind is None
            continue
        if arm == 'sqakd':
            assert kind == dict(type='FixedWeighting', task_weight=0.0)
            continue
        if arm.startswith('kd_'):
            assert kind == weighting_of('gor_ratio')
            heads.append(repr(model['kd_heads']))
            continue
        source = arm.partition('from_')[2] or 'yolox'
        teachers = {'retinanet', 'atss', 'yolox'}
        teachers = teachers if source == 'ekd' else {source}
        assert parents == {'float'} | teachers
        assert run.config['train_cfg']['max_epochs'] == 6
        if arm.startswith('from_'):
            assert kind == weighting_of('gor_ratio')
        elif arm.startswith(('fixed_', 'gor_')):
            assert kind == weighting_of(arm)
        else:
            name = kind['type'].removesuffix('Weighting').lower()
            assert name == arm.replace('_', '')
            seen.append((name, bits, betas))
    assert len(seen) == len(set(seen)) == 12 + 2
    assert len(heads) == len(set(heads)) == 14


def test_yolox(shipped):
    runs = shipped('coco_yolox')
    assert len(runs) == 3 * 15
    for run in runs:
        _, arm, bits, seed = run.key
        epochs = run.config['train_cfg']['max_epochs']
        assert arm == 'six_bits' or epochs == (6 if '_long' in arm else 2)
        arm = arm.removesuffix('_long')
        model, width = run.config['model'], int(bits[1])
        parts = [model[part] for part in ('backbone', 'neck', 'bbox_head')]
        assert {part['quant']['w_bits'] for part in parts} == {width}
        assert run.config['randomness']['seed'] == seed
        pipeline = run.config['train_dataloader']['dataset']['pipeline']
        assert pipeline[2]['scale'] == (256, 256)
        if arm in ('six_bits', 'qat'):
            assert 'teachers' not in model
            continue
        assert model['teachers']['nano']['checkpoint'] == '<weights:yolox>'
        assert [parent.key[1] for parent in run.parents] == ['six_bits']
        kind = model['gor_weighting']
        if arm.startswith(('fixed_', 'gor_')):
            assert kind == weighting_of(arm)
        else:
            assert kind == dict(type='UncertaintyWeighting')


def test_person(shipped):
    """One class, small pictures, one teacher; weights as the names say."""
    runs = shipped('person_retinanet')
    assert len(runs) == 8
    for run in runs:
        arm, cfg = run.key[1], run.config
        model = cfg['model']
        assert model['bbox_head']['num_classes'] == 1
        for split, resize in (('train', 2), ('val', 1), ('test', 1)):
            dataset = cfg[f'{split}_dataloader']['dataset']
            assert dataset['metainfo']['classes'] == ['person']
            assert dataset['pipeline'][resize]['scale'] == (224, 224)
        if arm == 'qat':
            assert 'teachers' not in model
        else:
            assert model['gor_weighting'] == weighting_of(arm)
