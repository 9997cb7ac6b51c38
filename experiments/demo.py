"""A 4-bit student learns from a larger detector, from start to table.

python -m experiments.demo                 generated scenes
python -m experiments.demo --data FOLDER   train.json, eval.json, images/
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.io.atomic_write import write_text, writing
from mmgor.quantization import layer_table
from mmgor.registry import MODELS
from mmgor.training_report.detections import STUDENT, Sight

from . import REPOSITORY
from .__main__ import tell
from .changes import changed_runs
from .demo_images import draw_detections
from .engine import Engine, locked
from .plan import Plan, make_plan
from .plan_file import read_plan_file
from .records import DONE, Record, read_records
from .report import markdown, spread
from .runs import Key, Run, build_runs
from .sights import detections_file, read_sight

_SCENES = SceneSpec(num_eval=200, size=96, num_teacher=1536)
_SMOKE_SCENES = SceneSpec(24, 8, size=96, num_teacher=48)
_PROGRESS_S = 10.0

PLANS = REPOSITORY / 'experiments' / 'plans'
#: For a folder of the user's, and for scenes.
DATA_PLAN, SCENES_PLAN = PLANS / 'demo.yaml', PLANS / 'scenes.yaml'
TITLES = {
    'teacher': 'teacher, float',
    'atss': 'teacher ATSS-MobileNetV2, float',
    'yolox': 'teacher YOLOX-nano, float',
    'float': 'student, float',
    'float2': 'student, float, trained as long',
    'qat': 'student, W4A4 without KD',
    'fixed': 'student, W4A4, KD with fixed weight 1',
    'gor': 'student, W4A4, KD weighed by GoR',
    'from_retinanet': 'student, W4A4, GoR, from RetinaNet',
    'from_atss': 'student, W4A4, GoR, from ATSS',
    'from_yolox': 'student, W4A4, GoR, from YOLOX-nano',
    'ekd': 'student, W4A4, GoR, from all three (EKD)',
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m experiments.demo',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--data', type=Path, help='COCO-format folder; default: scenes'
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo')
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument(
        '--arms',
        nargs='+',
        choices=list(read_plan_file(DATA_PLAN)['arms']),
        default=['float', 'qat', 'gor'],
        help='students to train besides their teachers',
    )
    parser.add_argument(
        '--teacher-backbone',
        type=Path,
        help="ImageNet weights of MobileNetV2 in mmdet's keys",
    )
    parser.add_argument(
        '--yolox-weights',
        type=Path,
        help='COCO weights of YOLOX-nano, where the YOLOX teacher starts',
    )
    parser.add_argument('--epochs', type=int, help='of every arm')
    parser.add_argument(
        '--smoke', action='store_true', help='smallest size, to see it run'
    )
    args = parser.parse_args(argv)
    if args.data is None:
        _check_for_scenes(parser, args)
    return args


def _check_for_scenes(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> None:
    known = list(read_plan_file(SCENES_PLAN)['arms'])
    unknown = [name for name in args.arms if name not in known]
    if unknown:
        parser.error(
            f'arms {unknown} need --data FOLDER; on scenes, choose from '
            f'{known}.'
        )
    if args.teacher_backbone or args.yolox_weights:
        parser.error(
            'pretrained weights are for teachers of a folder of images; add '
            '--data, or leave them out: scenes are learned from scratch.'
        )


def demo_plan(args: argparse.Namespace) -> Plan:
    """The chosen arms of the demo's plan and their teachers, on the user's
    folder or on scenes that are drawn into the work directory."""
    folder = args.data
    if folder is None:
        spec = _SMOKE_SCENES if args.smoke else _SCENES
        folder = generate_scenes(args.work_dir / 'scenes', spec)
        content = read_plan_file(SCENES_PLAN)
    else:
        content = _data_plan(args)
    arms, teachers = content['arms'], content['teachers']
    epochs = 1 if args.smoke else args.epochs
    if epochs is not None:
        for entry in (*arms.values(), *teachers.values()):
            entry['epochs'] = epochs
    chosen = [name for name in arms if name in ('float', *args.arms)]
    wanted = {
        teacher
        for name in chosen
        for teacher in arms[name].get('teachers', {}).values()
    }
    cpus = os.cpu_count() or 1
    # On CPUs, two runs share them better than one would use them.
    at_a_time = torch.cuda.device_count() or min(2, cpus)
    content.update(
        data={'data' if args.data else 'scenes': str(folder)},
        seeds=args.seeds,
        workers=at_a_time,
        threads=max(1, cpus // at_a_time),
        teachers={
            name: entry
            for name, entry in teachers.items()
            if name in (wanted or {'teacher'})
        },
        arms={name: arms[name] for name in chosen},
    )
    return make_plan(content, args.work_dir / 'runs.jsonl', {}, {})


def _data_plan(args: argparse.Namespace) -> dict[str, Any]:
    """The content of the plan for the user's folder and weights."""
    content = read_plan_file(DATA_PLAN)
    arms, teachers = content['arms'], content['teachers']
    if args.teacher_backbone is None:
        _use_resnet(teachers, arms)
    if args.yolox_weights is None:
        del teachers['yolox']['options']
    given = dict(mobilenetv2=args.teacher_backbone, yolox=args.yolox_weights)
    content['weights'] = {k: str(v) for k, v in given.items() if v}
    return content


def _use_resnet(teachers: dict, arms: dict) -> None:
    """A teacher from scratch for 'fixed' and 'gor': a ResNet-18, which a
    MobileNetV2 without pretrained weights does not reach on few images."""
    for teacher in ('teacher', 'atss'):
        del teachers[teacher]['options']
    teachers['teacher']['config'] = 'configs/demo/retinanet_r18.py'
    for arm in ('fixed', 'gor'):
        options = {'model.teachers': {'_delete_': True, 'r18': {}}}
        arms[arm].update(teachers={'r18': 'teacher'}, options=options)


def train(plan: Plan) -> tuple[list[Run], dict[Key, Record]]:
    """Train the runs that are not done, or done with another config or other
    weights.

    Raises:
        RuntimeError: If a training fails, with the end of its log.
    """
    runs = build_runs(plan)
    with locked(plan.results):
        records = read_records(plan.results)
        changed = {run.key for run in changed_runs(plan, runs, records)}
        done: dict[Key, Record] = {}
        for run in runs:  # each after those that it needs
            record = records.get(run.key)
            weights = plan.runs_folder / run.name / run.checkpoint
            if (
                record is not None
                and record.status == DONE
                and run.key not in changed
                and weights.is_file()
                and detections_file(plan, run).is_file()
                and all(parent.key in done for parent in run.parents)
            ):
                done[run.key] = record
                tell(f'{run.name}: done before, not trained again')
            elif record is not None and record.status == DONE:
                tell(
                    f'{run.name}: done before, but its config, weights or '
                    'detections are not as they were; trained again'
                )
        engine = Engine(plan, runs, done, tell, progress_s=_PROGRESS_S)
        engine.run()
    for run in runs:
        record = engine.records.get(run.key)
        if record is None or record.status != DONE:
            reason = record.reason if record else 'lost'
            raise RuntimeError(f'{run.name}: {reason}')
    return runs, engine.records


def summarise(
    plan: Plan,
    runs: list[Run],
    records: dict[Key, Record],
    sights: dict[Key, Sight],
) -> list[dict[str, Any]]:
    """One row per arm: its size, and of each seed its mAP, AP50 (None where
    there is none) and best F1 in per cent, and the score that gives it (None
    if nothing is found)."""
    rows = []
    for name in plan.arms:
        mine = [run for run in runs if run.key[1] == name]
        config = plan.runs_folder / mine[0].name / 'config.py'
        results = [records[run.key] for run in mine]
        limits = [sights[run.key].best_threshold(STUDENT) for run in mine]
        rows.append(
            dict(
                arm=name,
                title=TITLES[name],
                seeds=[run.key[3] for run in mine],
                **model_size(Config.fromfile(config)),
                mAP=[r.mAP and 100 * r.mAP for r in results],
                AP50=[r.AP50 and 100 * r.AP50 for r in results],
                F1=[100 * f1 for _, f1 in limits],
                score=[score if f1 else None for score, f1 in limits],
            )
        )
    return rows


def model_size(config: Config) -> dict[str, Any]:
    """Bits, parameters and packed bytes of a config's student."""
    table = layer_table(MODELS.build(config.model))
    w_bits, a_bits = min((r['w_bits'], r['a_bits']) for r in table['layers'])
    bits = 'float32' if w_bits == 32 else f'W{w_bits}A{a_bits}'
    total = table['total']
    return dict(bits=bits, params=total['params'], bytes=total['bytes'])


def format_rows(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    header = (
        'model',
        'mAP',
        'AP50',
        'best F1',
        'at score',
        'bits',
        'parameters',
        'MB packed',
    )
    body = [
        (
            row['title'],
            spread(pd.Series(row['mAP'], dtype=float)),
            spread(pd.Series(row['AP50'], dtype=float)),
            spread(pd.Series(row['F1'])),
            spread(pd.Series(row['score'], dtype=float), 2),
            row['bits'],
            f'{row["params"]:,}',
            f'{row["bytes"] / 1e6:.2f}',
        )
        for row in rows
    ]
    return markdown(header, body)


def draw(
    plan: Plan, runs: list[Run], sights: dict[Key, Sight], work_dir: Path
) -> list[Path]:
    """Detections of a teacher and of the last two arms, and the weights of
    the last arm that has teachers."""
    first = {run.key[1]: run for run in reversed(runs)}
    teacher = next(name for name, arm in plan.arms.items() if arm.once)
    shown = dict.fromkeys((teacher, *[*plan.arms][-2:]))
    images = [work_dir / 'detections.png']
    draw_detections(
        {TITLES[name]: sights[first[name].key] for name in shown}, images[0]
    )
    taught = [name for name, arm in plan.arms.items() if arm.teachers]
    if taught:
        images.append(work_dir / 'gor_weights.png')
        folder = plan.runs_folder / first[taught[-1]].name
        with writing(images[-1]) as part:
            shutil.copy(folder / 'gor_weights.png', part)
    return images


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    register_all_modules()
    started = time.monotonic()
    plan = demo_plan(args)
    for data in plan.data.values():
        tell(f'{data.root}: {len(data.classes)} classes, {data.side} px')
    try:
        runs, records = train(plan)
        sights = {run.key: read_sight(plan, run) for run in runs}
    except KeyboardInterrupt:
        return 130
    rows = summarise(plan, runs, records, sights)
    table = format_rows(rows)
    text = json.dumps(rows, indent=1) + '\n'
    write_text(args.work_dir / 'results.json', text)
    write_text(args.work_dir / 'results.md', table + '\n')
    tell(f'\n{table}\n')
    for sight in list(sights.values())[:1]:
        tell(
            f'Best F1: at the score threshold that suits the {sight.size} '
            'evaluation images best.'
        )
    for image in draw(plan, runs, sights, args.work_dir):
        tell(str(image))
    tell(f'{(time.monotonic() - started) / 60:.1f} minutes')
    return 0


if __name__ == '__main__':
    sys.exit(main())
