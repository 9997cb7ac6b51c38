"""What a teacher's cache on disk gives to a training step.

The demo's W4A4 student learns from RetinaNet-MobileNetV2 by logits and
features, or by class scores and boxes. It takes turns over a few batches of
random images (8 of 256 x 320 px), whose outputs the full cache knows. The arms
take turns: QAT alone, the teacher run in each step, its outputs read from the
cache, and its outputs kept in memory, which leaves the KD heads and the
teacher's preprocessing. The ratio of two arms is taken in each round, and the
median over the rounds is printed.

OMP_NUM_THREADS=1 python benchmarks/teacher_cache.py [--rounds 15]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from mmdet.utils import register_all_modules
from mmengine.config import Config
from step_time import (
    CONFIGS,
    build,
    make_batch,
    ratio_line,
    save_teachers,
    step_of,
    timed,
)

STUDENT = 'retinanet_r18half_w4'
#: What the student learns -> name of the teacher. Both are the same detector.
KINDS = {'logits and features': 'mbv2', 'scores and boxes': 'retinanet'}
WARM_UP = 2  # rounds over all batches


class Memory:
    """A cache that costs no reading."""

    def __init__(self) -> None:
        self._known: dict[float, Any] = {}

    def through(
        self,
        inputs: Any,
        samples: Sequence[Any],
        names: Sequence[str],
        run: Callable,
    ) -> Any:
        """As :class:`mmgor.distillation.teachers.cache.OutputCache` does."""
        key = inputs.flatten()[0].item()
        if key not in self._known:
            self._known[key] = run(inputs, samples)
        return self._known[key]


def model_of(kind: str, place: str, args: Any, weights: Path) -> Any:
    """A student and its optimizer, and how its teacher is asked.

    Args:
        kind (str): One of :data:`KINDS`.
        place (str): Where the outputs come from: 'teacher', 'cache' or
            'memory'.
        args (Namespace): ``batch``, ``size`` and ``device``.
        weights (Path): Of the teachers; the cache is beside them.
    """
    name = KINDS[kind]
    cfg = Config.fromfile(CONFIGS / f'{STUDENT}_from_{name}.py')
    if place == 'cache':
        cfg.model.teachers[name].cache = dict(folder=str(weights / 'cache'))
    model, wrapper = build(cfg, args, weights)
    if place == 'memory':
        model.teachers[name]._cache = Memory()
    return model, wrapper


def steps_of(args: Any, weights: Path) -> dict[str, list[Callable]]:
    """Each arm's steps, one per batch."""
    first = make_batch(args, args.device)
    batches = [
        dict(first, inputs=first['inputs'] + i) for i in range(args.batches)
    ]
    alone = Config.fromfile(CONFIGS / f'{STUDENT}.py')
    models = {'QAT': build(alone, args, weights)}
    for kind in KINDS:
        for place in ('teacher', 'cache', 'memory'):
            models[f'{kind}, {place}'] = model_of(kind, place, args, weights)
    return {
        name: [step_of(*model, batch) for batch in batches]
        for name, model in models.items()
    }


def report(
    seconds: dict[str, list[float]], weights: Path, images: int
) -> None:
    """Print median times, their ratios and the size of the entries."""
    for name, values in seconds.items():
        print(f'{name:32s} {1000 * median(values):8.1f} ms')
    print('\nratio of times: median (quartiles) over rounds')
    for kind, name in KINDS.items():
        for above, below in [
            (f'{kind}, teacher', 'QAT'),
            (f'{kind}, cache', 'QAT'),
            (f'{kind}, memory', 'QAT'),
            (f'{kind}, cache', f'{kind}, teacher'),
            (f'{kind}, cache', f'{kind}, memory'),
        ]:
            label = f'{above} / {below}'
            print(ratio_line(label, seconds[above], seconds[below]))
        files = (weights / 'cache' / name).rglob('*.pt')
        size = sum(file.stat().st_size for file in files)
        print(f'{kind}: {size / images / 1e6:.2f} MB an image')


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--batches', type=int, default=4)
    parser.add_argument('--size', type=int, nargs=2, default=[256, 320])
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args(given)
    register_all_modules()
    with TemporaryDirectory() as folder:
        weights = Path(folder)
        save_teachers(weights)
        arms = steps_of(args, weights)
        for steps in arms.values():
            for step in steps * WARM_UP:
                step()
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for i in range(args.rounds):
            for name, steps in arms.items():
                step = steps[i % len(steps)]
                seconds[name].append(timed(step, args.device))
        report(seconds, weights, args.batch * args.batches)


if __name__ == '__main__':
    main()
