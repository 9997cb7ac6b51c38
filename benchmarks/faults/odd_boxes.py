"""Train and check a data set whose annotation file is odd in one way.

Boxes leave their image, have no width, a negative one or NaN, or a category or
an image that does not exist; images have no boxes or the same id; lists are
empty. A training step of a quantized student with its teachers must have
finite losses, or there must be one error that names the file. ``mmgor doctor``
must say of each file what is odd.

python -m benchmarks.faults.odd_boxes [--rounds 3]
"""

import argparse
import json
import logging
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

import benchmarks.faults.toy_student  # noqa: F401
from mmgor.datasets import check_training_data
from mmgor.doctor.data import data_findings
from mmgor.doctor.findings import OK
from mmgor.hooks.broken_state import broken_tensors
from tests.support.training import (
    scene_teacher,
    tiny_scenes,
    training_config,
)

NAN, INF = float('nan'), float('inf')
SIDE = 64  # pixels


def boxes(change: Callable[[list[float]], list[float]], share: float) -> Any:
    """Change a share of the boxes; areas follow where they can."""

    def spoil(content: dict, rng: random.Random) -> None:
        for entry in content['annotations']:
            if rng.random() < share:
                entry['bbox'] = change(entry['bbox'])
                if len(entry['bbox']) == 4:
                    _, _, width, height = entry['bbox']
                    entry['area'] = abs(width * height)

    return spoil


def values(part: str, **new: Any) -> Any:
    """Give half of the entries of a list other values."""

    def spoil(content: dict, rng: random.Random) -> None:
        for entry in content[part]:
            if rng.random() < 0.5:
                entry.update(new)

    return spoil


def emptied(part: str) -> Any:
    """Remove all entries of a list."""

    def spoil(content: dict, rng: random.Random) -> None:
        content[part] = []

    return spoil


def lost(part: str, key: str) -> Any:
    """Remove a key of half of the entries."""

    def spoil(content: dict, rng: random.Random) -> None:
        for entry in content[part]:
            if rng.random() < 0.5:
                del entry[key]

    return spoil


def unlabelled(content: dict, rng: random.Random) -> None:
    """Half of the images have no boxes."""
    ids = [image['id'] for image in content['images']]
    kept = set(rng.sample(ids, len(ids) // 2))
    found = content['annotations']
    content['annotations'] = [x for x in found if x['image_id'] in kept]


def same_id(content: dict, rng: random.Random) -> None:
    """Two images have one id."""
    first, second = rng.sample(content['images'], 2)
    first['id'] = second['id']


def same_image_twice(content: dict, rng: random.Random) -> None:
    """An image is listed twice."""
    content['images'].append(dict(rng.choice(content['images'])))


def same_box(content: dict, rng: random.Random) -> None:
    """All boxes are listed twice."""
    content['annotations'] += [dict(x) for x in content['annotations']]


KINDS: dict[str, Callable[[dict, random.Random], None]] = {
    'sound': lambda content, rng: None,
    'outside': boxes(lambda b: [b[0] + SIDE, b[1], b[2], b[3]], 0.5),
    'all outside': boxes(lambda b: [b[0] + SIDE, b[1], b[2], b[3]], 1),
    'beyond the edge': boxes(lambda b: [b[0], b[1], 9 * SIDE, 9 * SIDE], 0.5),
    'huge': boxes(lambda b: [-1e30, -1e30, 3e30, 3e30], 0.5),
    'no width': boxes(lambda b: [b[0], b[1], 0, b[3]], 0.5),
    'tiny': boxes(lambda b: [b[0], b[1], 1e-6, 1e-6], 0.5),
    'negative width': boxes(lambda b: [b[0], b[1], -b[2], b[3]], 0.5),
    'nan corner': boxes(lambda b: [NAN, b[1], b[2], b[3]], 0.5),
    'nan width': boxes(lambda b: [b[0], b[1], NAN, b[3]], 0.5),
    'all nan': boxes(lambda b: [NAN] * 4, 1),
    'infinite width': boxes(lambda b: [b[0], b[1], INF, b[3]], 0.5),
    'infinite corner': boxes(lambda b: [-INF, b[1], INF, b[3]], 0.5),
    'text': boxes(lambda b: [str(b[0]), *b[1:2], 5, 5], 0.5),
    'three numbers': boxes(lambda b: b[:3], 0.5),
    'nan area': values('annotations', area=NAN),
    'negative area': values('annotations', area=-1),
    'no area': lost('annotations', 'area'),
    'no category': lost('annotations', 'category_id'),
    'unknown category': values('annotations', category_id=99),
    'category of text': values('annotations', category_id='disc'),
    'unknown image': values('annotations', image_id=10**6),
    'crowds': values('annotations', iscrowd=1),
    'unlabelled images': unlabelled,
    'no annotations': emptied('annotations'),
    'no images': emptied('images'),
    'no categories': emptied('categories'),
    'same id': same_id,
    'same image twice': same_image_twice,
    'same boxes twice': same_box,
    'size of 0': values('images', width=0),
    'negative size': values('images', height=-SIDE),
    'nan size': values('images', height=NAN),
    'wrong size': values('images', height=SIDE // 4),
    'no size': lost('images', 'width'),
    'categories of one name': values('categories', name='disc'),
    'categories of one id': values('categories', id=1),
}

#: Of these, doctor says no more than of sound files: they do no harm.
UNSAID = ('sound', 'crowds', 'unlabelled images', 'same image twice')


def run(
    kind: str, seed: int, sound: Path, teacher: dict, folder: Path
) -> tuple[str, str]:
    """Check and train one odd annotation file.

    Args:
        kind (str): One of :data:`KINDS`.
        seed (int): Chooses the entries.
        sound (Path): Folder with sound scenes.
        teacher (dict): Config and checkpoint of a teacher.
        folder (Path): To write into.

    Returns:
        tuple[str, str]: What came of the training, and what doctor said.
    """
    content = json.loads((sound / 'scenes' / 'train.json').read_text())
    KINDS[kind](content, random.Random(seed))
    file = folder / 'odd.json'
    file.write_text(json.dumps(content))
    cfg = training_config(sound / 'scenes', folder, teacher)
    name = f'{folder.name}_{kind}_{seed}'.replace(' ', '_')
    cfg.experiment_name = cfg.visualizer.name = name
    cfg.model.kd_heads.boxes = dict(type='DetectionKDHead')
    cfg.default_hooks.checkpoint = None
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.train_dataloader.dataset.ann_file = str(file)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    found = [f for f in data_findings(cfg, None) if file.name in str(f)]
    odd = [f'{f.status}: {f.found}' for f in found if f.status != OK]
    return train(cfg), '; '.join(odd) or 'nothing odd'


def train(cfg: Any) -> str:
    """Train an epoch as tools/train.py does; 'trained' or the error."""
    try:
        check_training_data(cfg.train_dataloader)
        runner = Runner.from_cfg(cfg)
        losses = []
        step = runner.model.train_step

        def noted(*args: Any, **kwargs: Any) -> dict:
            outputs = step(*args, **kwargs)
            losses.append(outputs['loss'])
            return outputs

        runner.model.train_step = noted
        runner.train()
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    broken = broken_tensors(runner.model)
    if broken or not torch.stack(losses).isfinite().all():
        return f'not finite: {broken[:2]} {losses}'
    return 'trained'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', nargs='+', choices=[*KINDS], default=KINDS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    logging.disable(logging.ERROR)
    faults, usual = 0, None
    with tempfile.TemporaryDirectory() as name:
        sound, folder = Path(name) / 'sound', Path(name) / 'odd'
        for path in (sound, folder):
            path.mkdir()
        tiny_scenes(sound / 'scenes')
        teacher = scene_teacher(sound)
        for kind in dict.fromkeys(['sound', *args.only]):
            for seed in range(args.rounds):
                trained, said = run(kind, seed, sound, teacher, folder)
                usual = usual or said
                silent = said == usual and kind not in UNSAID
                named = trained == 'trained' or 'odd.json' in trained
                faults += silent or not named
                print(
                    f'{kind:22} {trained[:200]}\n{"":22} {said[:200]}',
                    flush=True,
                )
    return int(faults > 0)


if __name__ == '__main__':
    raise SystemExit(main())
