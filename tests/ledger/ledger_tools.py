"""A small plan whose trainings are faked."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from mmgor.ledger.plan import read_plan
from mmgor.ledger.records import Record, locked, read_records
from mmgor.ledger.runs import Key, Run, build_runs
from mmgor.ledger.schedule import Schedule

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
CONFIG = """
model = dict(bbox_head=dict(num_classes=80), backbone=dict({quant}))
resize = dict(type='Resize', scale=(320, 320), keep_ratio=True)
train_dataloader = dict(
    dataset=dict(
        data_root='data/',
        pipeline=[dict(type='Load'), dict(type='LoadAnnotations'), resize],
    )
)
val_dataloader = test_dataloader = dict(
    dataset=dict(data_root='data/', pipeline=[dict(type='Load'), resize])
)
val_evaluator = test_evaluator = dict(ann_file='eval.json')
train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [dict(type='CosineAnnealingLR', end=12, T_max=12)]
custom_hooks = [dict(type='EMAHook'), dict(type='OtherHook')]
work_dir = 'somewhere'
{more}
"""


def write_configs(folder: Path) -> None:
    """float.py, quant.py and taught.py, as a repository would ship them."""
    folder.mkdir(parents=True)
    texts = dict(
        float=CONFIG.format(quant='', more=''),
        quant=CONFIG.format(quant='quant=dict(w_bits=8)', more=''),
        taught=CONFIG.format(
            quant='quant=dict(w_bits=8)',
            more="model['teachers'] = dict(big=dict(config='', "
            "checkpoint='', classes=['a']))",
        ),
    )
    for name, text in texts.items():
        (folder / f'{name}.py').write_text(text)


def write_data(folder: Path, note: str = '') -> Path:
    """A data folder of one picture that nobody opens."""
    (folder / 'images').mkdir(parents=True)
    (folder / 'images' / 'x').touch()
    content = dict(
        info=note,
        images=[dict(id=1, file_name='x', width=32, height=48)],
        annotations=[dict(id=1)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
    )
    for split in ('train', 'eval'):
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


def plan_content(folder: Path) -> dict[str, Any]:
    """teacher and float, then qat from float, then taught by both."""
    configs = folder / 'configs'
    return dict(
        results=str(folder / 'results.jsonl'),
        data=dict(cells=str(folder / 'cells')),
        seeds=[0, 1],
        epochs=3,
        bits=dict(W4={'model.backbone.quant.w_bits': 4}),
        teachers=dict(teacher=dict(config=str(configs / 'float.py'))),
        arms=dict(
            float=dict(config=str(configs / 'float.py')),
            qat=dict(
                config=str(configs / 'quant.py'), bits=['W4'], start='float'
            ),
            taught=dict(
                config=str(configs / 'taught.py'),
                bits=['W4'],
                start='float',
                teachers=dict(big='teacher'),
            ),
        ),
    )


def write_weights(file: Path, value: float) -> None:
    """A checkpoint; NaN is no divergence in what the game keeps for itself."""
    weights = {
        'neck.weight': torch.tensor([1.0, value]),
        'neck.count': torch.tensor(3),
        'gor_weighting.strength': torch.tensor([1.0, float('nan')]),
    }
    torch.save(dict(state_dict=weights), file)


class Bench:
    """A folder with configs, data and a plan that tests change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_configs(folder / 'configs')
        write_data(folder / 'cells')
        self.content = plan_content(folder)
        self.calls_file = folder / 'calls'
        write_weights(folder / 'good.pth', 2.0)
        write_weights(folder / 'diverged.pth', float('inf'))

    def behave(self, arm: str, behaviour: str) -> None:
        group = 'teachers' if arm == 'teacher' else 'arms'
        options = self.content[group][arm].setdefault('options', {})
        options['model.behaviour'] = behaviour

    def plan(self, **paths: dict[str, Path]) -> Any:
        file = self.folder / 'plan.yaml'
        file.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return read_plan(file, **paths)

    def runs(self) -> dict[str, Run]:
        """Below the data's folder: name -> run."""
        return {
            run.name.partition('/')[2]: run for run in build_runs(self.plan())
        }

    def schedule(self, lock: int) -> Schedule:
        plan = self.plan()
        runs = build_runs(plan)
        records = read_records(plan.results)
        self.lines: list[str] = []
        return Schedule(
            plan, runs, records, lock, self.lines.append, train=FAKE_TRAIN
        )

    def train(self) -> None:
        with locked(self.folder / 'results.jsonl') as lock:
            self.schedule(lock).run()

    def records(self) -> dict[str, Record]:
        found = read_records(self.folder / 'results.jsonl').values()
        return {record.name.partition('/')[2]: record for record in found}

    def records_by_key(self) -> dict[Key, Record]:
        return read_records(self.folder / 'results.jsonl')

    def calls(self) -> list[str]:
        """Runs that were started, in order; empties the list."""
        text = self.calls_file.read_text() if self.calls_file.exists() else ''
        self.calls_file.write_text('')
        return [line.partition('/')[2] for line in text.splitlines()]


def states(bench: Bench) -> dict[str, str]:
    """Status of each recorded run."""
    return {name: record.status for name, record in bench.records().items()}
