"""What is drawn at a score threshold: precision, recall and F1 at IoU 0.5.

mAP weighs every threshold alike; a device has one.

python tools/test.py CONFIG CHECKPOINT --cfg-options \\
    test_evaluator.outfile_prefix=out/student
python benchmarks/operating_points.py eval.json out/student.bbox.json ...

Several results (of several seeds) are averaged.
"""

import argparse
import contextlib
import os
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('annotations', type=Path, help='COCO JSON file')
    parser.add_argument(
        'results', type=Path, nargs='+', help='*.bbox.json of CocoMetric'
    )
    parser.add_argument(
        '--thresholds', type=float, nargs='+', default=[0.3, 0.4, 0.5]
    )
    args = parser.parse_args()
    for path in (args.annotations, *args.results):
        if not path.is_file():
            parser.error(f'expected a JSON file, got {path}')
    return args


class Matches(NamedTuple):
    """Detections of a data set; ``found``: whether each found a box."""

    scores: np.ndarray
    found: np.ndarray
    boxes: int
    images: int


def match(annotations: Path, results: Path) -> Matches:
    """By COCOeval at IoU 0.5, class by class, the highest score first."""
    with open(os.devnull, 'w') as null, contextlib.redirect_stdout(null):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), 'bbox')
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = evaluation.params.areaRng[:1]  # any size
        evaluation.evaluate()
    entries = [entry for entry in evaluation.evalImgs if entry]
    counts = [~entry['dtIgnore'][0].astype(bool) for entry in entries]
    both = list(zip(entries, counts))
    return Matches(
        np.concatenate([np.array(e['dtScores'])[c] for e, c in both]),
        np.concatenate([e['dtMatches'][0][c] > 0 for e, c in both]),
        sum(int((1 - np.array(e['gtIgnore'])).sum()) for e in entries),
        len(truth.getImgIds()),
    )


def operating_point(
    matches: Matches, threshold: float
) -> tuple[float, float, float, float]:
    """Boxes per image, precision, recall and F1 of what scores more."""
    drawn = matches.scores > threshold
    count, right = int(drawn.sum()), int((drawn & matches.found).sum())
    return (
        count / matches.images,
        right / max(count, 1),
        right / matches.boxes,
        2 * right / (count + matches.boxes),
    )


def main() -> None:
    args = parse_args()
    runs = [match(args.annotations, path) for path in args.results]
    print('| threshold | boxes per image | precision | recall | F1 |')
    print('|---:|---:|---:|---:|---:|')
    for threshold in args.thresholds:
        points = [operating_point(run, threshold) for run in runs]
        count, *rates = (mean(column) for column in zip(*points))
        cells = [f'{count:.1f}', *(f'{100 * rate:.1f}' for rate in rates)]
        print(f'| {threshold} | {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
