"""What the model of a run found on the evaluation images.

It is read from the file that the run's last evaluation left, so that nothing
is computed twice.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmgor.training_report.detections import (
    STUDENT,
    Seen,
    Sight,
    evaluation_set,
    truth_of,
)
from mmgor.training_report.matching import Boxes, without_ignored

from .plan import Plan
from .runs import Run
from .training import DETECTIONS


def detections_file(plan: Plan, run: Run) -> Path:
    """Where CocoMetric writes the detections of a run."""
    return plan.runs_folder / run.name / f'{DETECTIONS}.bbox.json'


def read_sight(plan: Plan, run: Run) -> Sight:
    """The detections of a run that is done, on all evaluation images.

    Raises:
        FileNotFoundError: If the file with them is gone.
    """
    found = defaultdict(list)
    for box in json.loads(detections_file(plan, run).read_text()):
        found[box['image_id']].append(box)
    config = Config.fromfile(plan.runs_folder / run.name / 'config.py')
    dataset = evaluation_set(config)
    images = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth, ignored = truth_of(info)
        boxes = _boxes(found[info['img_id']], dataset.cat2label)
        boxes = without_ignored(boxes, truth, ignored)
        images.append(Seen(info['img_path'], truth, {STUDENT: boxes}))
    return Sight(images, len(images), dataset.metainfo['classes'], {})


def _boxes(found: list[dict[str, Any]], labels: dict[int, int]) -> Boxes:
    """COCO's entries of one image; their boxes are left, top, width,
    height."""
    boxes = torch.tensor([x['bbox'] for x in found]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Boxes(
        boxes,
        torch.tensor([labels[x['category_id']] for x in found]).long(),
        torch.tensor([x['score'] for x in found]),
    )
