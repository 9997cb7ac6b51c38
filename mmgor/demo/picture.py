"""Ground truth, teacher and student side by side."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mmdet.apis import inference_detector, init_detector
from pycocotools.coco import COCO

from .arms import Arm
from .data import DataFolder

SCORE = 0.3
Boxes = list[tuple[np.ndarray, int, float | None]]


def draw_detections(
    data: DataFolder, arms: list[Arm], out: Path, count: int = 4
) -> Path:
    """Draw the first evaluation pictures with at least three objects.

    Args:
        data (DataFolder): Where the pictures are.
        arms (list[Arm]): One column each, after the ground truth.
        out (Path): PNG to write.
        count (int): Rows.

    Returns:
        Path: ``out``.
    """
    coco = COCO(str(data.root / 'eval.json'))
    images = [
        image
        for image in coco.dataset['images']
        if len(coco.getAnnIds(imgIds=image['id'])) >= 3
    ][:count]
    models = [
        init_detector(arm.config, str(arm.checkpoint), device='cpu')
        for arm in arms
    ]
    titles = ['ground truth', *(arm.name for arm in arms)]
    figure = Figure(
        figsize=(3.4 * len(titles), 2.7 * len(images)), layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    for row, image in zip(axes, images):
        path = str(data.root / 'images' / image['file_name'])
        columns = [_truth(coco, image['id'])]
        columns += [_found(model, path) for model in models]
        picture = np.asarray(cv2.imread(path))[..., ::-1]
        for axis, title, boxes in zip(row, titles, columns):
            _draw(axis, picture, boxes)
            axis.set_title(f'{title} ({len(boxes)})', fontsize=9)
    handles = [
        Patch(color=_colour(i), label=name)
        for i, name in enumerate(data.classes[:12])
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=6, fontsize=9
    )
    figure.savefig(out, dpi=110)
    return out


def _truth(coco: COCO, image_id: int) -> Boxes:
    labels = {c: i for i, c in enumerate(sorted(coco.getCatIds()))}
    return [
        (np.array(a['bbox']), labels[a['category_id']], None)
        for a in coco.loadAnns(coco.getAnnIds(imgIds=image_id))
    ]


def _found(model: Any, path: str) -> Boxes:
    found = inference_detector(model, path).pred_instances.numpy()
    boxes: Boxes = []
    for box, label, score in zip(found.bboxes, found.labels, found.scores):
        if score >= SCORE:
            left, top, right, bottom = box
            boxes.append(
                (
                    np.array([left, top, right - left, bottom - top]),
                    int(label),
                    float(score),
                )
            )
    return boxes


def _draw(axis: Axes, picture: np.ndarray, boxes: Boxes) -> None:
    axis.imshow(picture)
    axis.axis('off')
    for (left, top, width, height), label, score in boxes:
        axis.add_patch(
            Rectangle(
                (left, top),
                width,
                height,
                fill=False,
                linewidth=1.2,
                edgecolor=_colour(label),
            )
        )
        if score is not None:
            axis.text(
                left, top - 1, f'{score:.2f}', fontsize=5, color=_colour(label)
            )


def _colour(label: int) -> tuple[float, float, float, float]:
    return colormaps['tab10'](label % 10)
