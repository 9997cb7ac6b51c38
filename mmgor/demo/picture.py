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

from mmgor.io.atomic_write import writing

from .arms import TITLES, Arm
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
    images = _choose(coco, count)
    models = [
        init_detector(arm.config, str(arm.checkpoint), device='cpu')
        for arm in arms
    ]
    titles = ['ground truth', *(TITLES[arm.name] for arm in arms)]
    figure = Figure(
        figsize=(3.4 * len(titles), 2.7 * len(images)), layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    present: set[int] = set()
    for row, image in zip(axes, images):
        path = str(data.root / 'images' / image['file_name'])
        columns = [_truth(coco, image['id'])]
        columns += [_found(model, path) for model in models]
        picture = np.asarray(cv2.imread(path))[..., ::-1]
        for axis, title, boxes in zip(row, titles, columns):
            _draw(axis, picture, boxes)
            axis.set_title(f'{title} ({len(boxes)})', fontsize=9)
            present.update(label for _, label, _ in boxes)
    handles = [
        Patch(color=_colour(label), label=data.classes[label])
        for label in sorted(present)
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=6, fontsize=9
    )
    with writing(out) as part:
        figure.savefig(part, dpi=110)
    return out


def _choose(coco: COCO, count: int) -> list[dict]:
    """The first pictures with three objects, or else with the most."""

    def few(image: dict) -> int:
        return -min(3, len(coco.getAnnIds(imgIds=image['id'])))

    return sorted(coco.dataset['images'], key=few)[:count]


def _truth(coco: COCO, image_id: int) -> Boxes:
    labels = {c: i for i, c in enumerate(coco.getCatIds())}
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
    rows, columns = picture.shape[:2]
    # Boxes count from the corner of the first pixel, not from its middle.
    axis.imshow(picture, extent=(0, columns, rows, 0))
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
    return colormaps['tab20'](label * 2 % 20 + label // 10 % 2)
