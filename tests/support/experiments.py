"""A small plan whose trainings are faked."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.engine import Engine
from experiments.plan import Plan, read_plan
from experiments.records import Record, read_records
from experiments.runs import Run, build_runs

FAKE_TRAIN = (sys.executable, str(Path(__file__).with_name('fake_train.py')))
#: Runs of the small plan, in the order in which they are started.
RUNS = [
    'teacher/float/seed0',
    'float/float/seed0',
    'float/float/seed1',
    'qat/W4/seed0',
    'taught/W4/seed0',
    'qat/W4/seed1',
    'taught/W4/seed1',
]
_CONFIG = """
model = dict(bbox_head=dict(num_classes=80), backbone=dict({quant}))
resize = dict(type='Resize', scale=(320, 320), keep_ratio=True)
train_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        data_root='data/',
        pipeline=[dict(type='Load'), dict(type='LoadAnnotations'), resize],
    )
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        type='CocoDataset',
        data_root='data/',
        pipeline=[dict(type='Load'), resize],
    )
)
val_evaluator = test_evaluator = dict(ann_file='eval.json')
train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [dict(type='CosineAnnealingLR', end=12, T_max=12)]
custom_hooks = [dict(type='EMAHook'), dict(type='OtherHook')]
work_dir = 'somewhere'
{more}
"""
_QUANT = 'quant=dict(w_bits=8)'
_TEACHERS = (
    "model['teachers'] = dict(big=dict(config='', checkpoint='', "
    "classes=['a']))"
)


def write_data(folder: Path, note: str = '') -> Path:
    """A data folder of one image that nobody opens."""
    (folder / 'images').mkdir(parents=True)
    (folder / 'images' / 'x').write_text('x')
    content = dict(
        info=note,
        images=[dict(id=1, file_name='x', width=32, height=48)],
        annotations=[dict(id=1)],
        categories=[dict(id=2, name='b'), dict(id=1, name='a')],
    )
    for split in ('train', 'eval'):
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


def write_weights(file: Path, value: float) -> None:
    """A checkpoint; NaN in GoR's own state is not a divergence."""
    weights = {
        'neck.weight': torch.tensor([1.0, value]),
        'gor_weighting.strength': torch.tensor([1.0, float('nan')]),
    }
    torch.save(dict(state_dict=weights), file)


def plan_content(folder: Path) -> dict[str, Any]:
    """teacher and float, then qat from float, then taught by both."""
    configs = folder / 'configs'
    quantized = dict(bits=['W4'], start='float')
    return dict(
        data=dict(cells=str(folder / 'cells')),
        seeds=[0, 1],
        epochs=3,
        workers=2,
        bits=dict(W4={'model.backbone.quant.w_bits': 4}),
        teachers=dict(teacher=dict(config=str(configs / 'float.py'))),
        arms=dict(
            float=dict(config=str(configs / 'float.py')),
            qat=dict(config=str(configs / 'quant.py'), **quantized),
            taught=dict(
                config=str(configs / 'taught.py'),
                teachers=dict(big='teacher'),
                **quantized,
            ),
        ),
    )


def record(**changes: Any) -> Record:
    """A line of results."""
    values: dict[str, Any] = dict(
        arm='qat',
        bits='W4A4',
        seed=0,
        data='cells',
        epochs=12,
        mAP=0.5,
        AP50=0.75,
        config_hash='0123456789ab',
        parents={'cells/float/float/seed0': 'ba9876543210'},
        commit='abc',
        device='a processor',
        wall_s=60.0,
        gor_w_task=None,
        gor_w_kd=None,
        status='done',
        reason='',
    )
    return Record(**{**values, **changes})


class Bench:
    """A folder with configs, data and a plan that tests change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        configs = folder / 'configs'
        configs.mkdir(parents=True)
        for name, quant, more in (
            ('float', '', ''),
            ('quant', _QUANT, ''),
            ('taught', _QUANT, _TEACHERS),
        ):
            text = _CONFIG.format(quant=quant, more=more)
            (configs / f'{name}.py').write_text(text)
        write_data(folder / 'cells')
        write_weights(folder / 'good.pth', 2.0)
        write_weights(folder / 'diverged.pth', float('inf'))
        self.content = plan_content(folder)
        self.results = folder / 'plan.jsonl'
        self.runs_folder = folder / 'plan'
        self.lines: list[str] = []

    def behave(self, arm: str, behaviour: str) -> None:
        """How the fake training of an arm ends."""
        group = 'teachers' if arm == 'teacher' else 'arms'
        options = self.content[group][arm].setdefault('options', {})
        options['model.behaviour'] = behaviour

    def write(self) -> Path:
        file = self.folder / 'plan.yaml'
        file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return file

    def plan(self, **paths: dict[str, Path]) -> Plan:
        return read_plan(self.write(), work_dir=self.folder, **paths)

    def runs(self) -> dict[str, Run]:
        """Name below the data's folder -> run."""
        return {
            run.name.partition('/')[2]: run for run in build_runs(self.plan())
        }

    def train(self) -> None:
        plan = self.plan()
        self.lines.clear()
        Engine(
            plan,
            build_runs(plan),
            read_records(plan.results),
            self.lines.append,
            FAKE_TRAIN,
            progress_s=0,
        ).run()

    def records(self) -> dict[str, Record]:
        """Name below the data's folder -> record."""
        found = read_records(self.results).values()
        return {record.name.partition('/')[2]: record for record in found}

    def states(self) -> dict[str, str]:
        """Status of each recorded run."""
        return {name: record.status for name, record in self.records().items()}

    def calls(self) -> set[str]:
        """Runs that were started since the last call."""
        file = self.folder / 'calls'
        text = file.read_text() if file.exists() else ''
        file.write_text('')
        return {line.partition('/')[2] for line in text.splitlines()}
