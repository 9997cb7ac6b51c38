"""Ground truth, teacher and student side by side."""

from pathlib import Path

import mmcv
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mmdet.apis import inference_detector, init_detector
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mmgor.datasets.data_folder import DataFolder
from mmgor.io.atomic_write import writing

SCORE = 0.3


def draw_detections(
    data: DataFolder,
    models: dict[str, tuple[Path, Path]],
    out: Path,
    count: int = 4,
) -> None:
    """Draw the first evaluation images with at least three objects, or else
    those with the most.

    Args:
        data (DataFolder): Where the images are.
        models (dict[str, tuple]): Title to config and checkpoint; one column
            each, after the ground truth.
        out (Path): PNG to write.
        count (int): Rows.
    """
    coco = COCO(str(data.root / 'eval.json'))
    images = sorted(
        coco.dataset['images'],
        key=lambda image: -min(3, len(coco.getAnnIds(imgIds=image['id']))),
    )[:count]
    detectors = [
        init_detector(str(config), str(checkpoint), device='cpu')
        for config, checkpoint in models.values()
    ]
    titles = ['ground truth', *models]
    size = 3.4 * len(titles), 2.7 * len(images)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    present: set[int] = set()
    for row, image in zip(axes, images):
        path = str(data.root / 'images' / image['file_name'])
        columns = [_truth(coco, image['id'])]
        columns += [
            inference_detector(model, path).pred_instances
            for model in detectors
        ]
        for axis, title, found in zip(row, titles, columns):
            if 'scores' in found:
                found = found[found.scores >= SCORE]
            _draw(axis, path, found)
            axis.set_title(f'{title} ({len(found)})', fontsize=9)
            present.update(found.labels.tolist())
    handles = [
        Patch(color=_colour(label), label=data.classes[label])
        for label in sorted(present)
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=6, fontsize=9
    )
    with writing(out) as part:
        figure.savefig(part, dpi=110)


def _truth(coco: COCO, image_id: int) -> InstanceData:
    labels = {category: i for i, category in enumerate(coco.getCatIds())}
    found = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
    boxes = torch.tensor([each['bbox'] for each in found]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    classes = [labels[each['category_id']] for each in found]
    return InstanceData(bboxes=boxes, labels=torch.tensor(classes))


def _draw(axis: Axes, path: str, found: InstanceData) -> None:
    pixels = mmcv.imread(path, channel_order='rgb')
    rows, columns = pixels.shape[:2]
    # Boxes count from the corner of the first pixel, not from its middle.
    axis.imshow(pixels, extent=(0, columns, rows, 0))
    axis.axis('off')
    for i, (left, top, right, bottom) in enumerate(found.bboxes.tolist()):
        colour = _colour(int(found.labels[i]))
        box = (left, top), right - left, bottom - top
        axis.add_patch(
            Rectangle(*box, fill=False, linewidth=1.2, edgecolor=colour)
        )
        if 'scores' in found:
            text = f'{found.scores[i]:.2f}'
            axis.text(left, top - 1, text, fontsize=5, color=colour)


def _colour(label: int) -> tuple[float, float, float, float]:
    return colormaps['tab20'](label * 2 % 20 + label // 10 % 2)
