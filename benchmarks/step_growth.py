"""How the time of a step grows with image size, batch and teachers.

The students of step_time.py on random images, in one process: the arms take
turns in each round, and medians are drawn and printed.

OMP_NUM_THREADS=1 python benchmarks/step_growth.py [--rounds 5] [--out FILE]
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from mmdet.utils import register_all_modules
from mmengine.config import Config
from step_time import (
    build,
    make_batch,
    save_teachers,
    step_of,
    student_config,
    timed,
)

from mmgor.io.atomic_write import writing

SIZES = [(128, 160), (256, 320), (384, 480), (512, 640)]
BATCHES = [1, 2, 4, 8]
TEACHERS = ['retinanet', 'atss', 'yolox']
ARMS = {
    'float': 'float student',
    'qat': 'QAT, W4A4',
    'gor': 'GoR, W4A4, one teacher',
}
SIZE, BATCH = (256, 320), 4
WARM_UP = 2


def with_teachers(count: int) -> Config:
    """The student with the first of the three teachers, by class scores and
    boxes; without teachers, the QAT student."""
    if not count:
        return student_config('qat')
    cfg = student_config('ekd')
    kept = TEACHERS[:count]
    for name in TEACHERS[count:]:
        del cfg.model.teachers[name]
        del cfg.model.kd_heads[f'box_{name}']
    cfg.model.kd_heads.cls.teacher = kept
    if count == 1:  # nothing to fuse
        del cfg.model.kd_heads.cls.fusion
    for name in kept:
        cfg.model.kd_heads[f'box_{name}'].loss_weight = 1 / count
    return cfg


def measure(
    configs: dict[str, Config],
    points: Iterable[tuple[int, tuple[int, int]]],
    args: argparse.Namespace,
) -> list[dict]:
    """One row per arm and point (batch, size): its median in seconds."""
    models = {
        arm: build(cfg, args, args.weights) for arm, cfg in configs.items()
    }
    rows = []
    for batch, size in points:
        data = make_batch(
            argparse.Namespace(batch=batch, size=size), args.device
        )
        steps = {arm: step_of(*model, data) for arm, model in models.items()}
        seconds = in_turns(steps, args)
        rows += [
            dict(arm=arm, batch=batch, pixels=size[0] * size[1], s=value)
            for arm, value in seconds.items()
        ]
    return rows


def in_turns(
    steps: dict[str, Callable[[], None]], args: argparse.Namespace
) -> dict[str, float]:
    """Median time of each step."""
    times: dict[str, list[float]] = {arm: [] for arm in steps}
    for number in range(WARM_UP + args.rounds):
        for arm, step in steps.items():
            value = timed(step, args.device)
            if number >= WARM_UP:
                times[arm].append(value)
    return {arm: median(values) for arm, values in times.items()}


def draw(students: pd.DataFrame, teachers: pd.DataFrame, out: Path) -> None:
    """Three panels: milliseconds an image."""
    figure = Figure(figsize=(12, 3.6), layout='constrained')
    axes = figure.subplots(1, 3, sharey=False)
    by_size = students[students.batch == BATCH]
    by_batch = students[students.pixels == SIZE[0] * SIZE[1]]
    look = dict(y='ms an image', marker='o')
    sns.lineplot(by_size, x='kilopixels', hue='arm', ax=axes[0], **look)
    axes[0].set_xlabel(f'1,000 pixels of an image (batches of {BATCH})')
    sns.lineplot(
        by_batch, x='batch', hue='arm', ax=axes[1], legend=False, **look
    )
    axes[1].set_xlabel(f'images in a batch ({SIZE[0]} x {SIZE[1]} px)')
    axes[1].set_xticks(BATCHES)
    sns.lineplot(teachers, x='arm', color='black', ax=axes[2], **look)
    axes[2].set_xlabel('teachers (scores and boxes)')
    axes[2].set_xticks(range(len(TEACHERS) + 1))
    for axis in axes:
        axis.set_ylim(bottom=0)
    with writing(out) as part:
        figure.savefig(part, dpi=110, format='png')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/step_growth.png')
    )
    args = parser.parse_args(argv)
    register_all_modules()
    args.weights = Path('work_dirs/benchmark_teachers')
    args.batch, args.size = BATCH, SIZE  # on which ranges are calibrated
    save_teachers(args.weights)
    points = [(BATCH, size) for size in SIZES]
    points += [(batch, SIZE) for batch in BATCHES if batch != BATCH]
    students = pd.DataFrame(
        measure({arm: student_config(arm) for arm in ARMS}, points, args)
    )
    students['arm'] = students.arm.map(ARMS)
    students['kilopixels'] = students.pixels / 1000
    counts = {
        str(count): with_teachers(count) for count in range(len(TEACHERS) + 1)
    }
    teachers = pd.DataFrame(measure(counts, [(BATCH, SIZE)], args))
    teachers['arm'] = teachers.arm.astype(int)
    for frame in (students, teachers):
        frame['ms an image'] = 1000 * frame.s / frame.batch
        print(frame.drop(columns='s').to_string(index=False))
    draw(students, teachers, args.out)
    print(args.out)


if __name__ == '__main__':
    main()
