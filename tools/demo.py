"""A 4-bit student learns from a larger detector, from start to table.

python tools/demo.py                       generated scenes
python tools/demo.py --data FOLDER         train.json, eval.json, images/
"""

import argparse
import shutil
import time
from pathlib import Path

import _common  # noqa: F401
from mmdet.utils import register_all_modules

from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.demo.arms import CONFIGS, TAUGHT, TEACHERS, build_arm, train_arm
from mmgor.demo.data import DataFolder, read_data_folder
from mmgor.demo.picture import draw_detections
from mmgor.demo.table import format_rows, save_rows, summarise
from mmgor.io.atomic_write import writing

SMOKE_SCENES = SceneSpec(num_train=24, num_eval=8, size=96, max_objects=4)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
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
        choices=[n for n in CONFIGS if n not in TEACHERS.values()],
        default=['float', 'float2', 'gor'],
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
    args = parser.parse_args()
    for name in ('teacher_backbone', 'yolox_weights'):
        path = getattr(args, name)
        if path and not path.is_file():
            parser.error(f'--{name.replace("_", "-")} not found: {path}')
    return args


def prepare_data(args: argparse.Namespace) -> DataFolder:
    """The user's folder, or scenes drawn into the work directory."""
    if args.data is not None:
        return read_data_folder(args.data.resolve())
    spec = SMOKE_SCENES if args.smoke else SceneSpec()
    folder = generate_scenes(args.work_dir / 'scenes', spec)
    return read_data_folder(folder.resolve())


def main() -> None:
    args = parse_args()
    args.work_dir = args.work_dir.resolve()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    register_all_modules()
    started = time.monotonic()
    data = prepare_data(args)
    print(
        f'{data.root}: {len(data.classes)} classes, {data.side} px', flush=True
    )
    # The float student first: every other student starts from it.
    names = ['float', *(name for name in args.arms if name != 'float')]
    wanted = {key for name in names for key in TAUGHT.get(name, ())}
    teachers = [arm for key, arm in TEACHERS.items() if key in wanted]
    plan = [(name, 0) for name in teachers or ['teacher']]
    plan += [(n, s) for s in args.seeds for n in names]
    epochs = 1 if args.smoke else args.epochs
    runs = []
    for number, (name, seed) in enumerate(plan, 1):
        arm = build_arm(
            name,
            seed,
            data,
            args.work_dir,
            epochs,
            args.teacher_backbone,
            args.yolox_weights,
        )
        minutes = (time.monotonic() - started) / 60
        print(
            f'\n[{number}/{len(plan)}] {arm.work_dir.name} '
            f'({minutes:.1f} min so far)',
            flush=True,
        )
        runs.append((arm, train_arm(arm, lambda s: print(s, flush=True))))
    report(args, data, runs, time.monotonic() - started)


def report(
    args: argparse.Namespace, data: DataFolder, runs: list, seconds: float
) -> None:
    """Table, curves and pictures."""
    rows = summarise(runs)
    save_rows(rows, args.work_dir)
    taught = [arm for arm, _ in runs if arm.name in TAUGHT]
    shown = [runs[0][0]] + [a for a in taught if a.name == taught[-1].name][:1]
    print(f'\n{format_rows(rows)}\n')
    print(draw_detections(data, shown, args.work_dir / 'detections.png'))
    if len(shown) > 1:
        curves = args.work_dir / 'gor_weights.png'
        with writing(curves) as part:
            shutil.copy(shown[1].work_dir / 'gor_weights.png', part)
        print(curves)
    print(f'{seconds / 60:.1f} minutes')


if __name__ == '__main__':
    main()
