"""Ground truth and the detections of some models side by side."""

from collections.abc import Sequence
from pathlib import Path

import mmcv
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mmgor.io.atomic_write import writing
from mmgor.training_report.detections import STUDENT, Sight
from mmgor.training_report.matching import Boxes

_OBJECTS = 3


def draw_detections(
    sights: dict[str, Sight], out: Path, count: int = 4
) -> None:
    """Draw the first images with at least three objects, or else those with
    the most.

    Args:
        sights (dict[str, Sight]): Title to what a model sees, of the same
            images; one column each, after the ground truth. Each shows the
            detections above its own threshold of best F1.
        out (Path): PNG to write.
        count (int): Rows.
    """
    first = next(iter(sights.values()))
    order = sorted(
        range(len(first.images)),
        key=lambda index: -min(_OBJECTS, len(first.images[index].truth)),
    )
    limits = {
        title: sight.best_threshold(STUDENT) for title, sight in sights.items()
    }
    columns = len(sights) + 1
    rows = order[:count]
    figure = Figure(figsize=(3.4 * columns, 2.9 * len(rows)))
    figure.set_layout_engine('constrained')
    axes = figure.subplots(len(rows), columns, squeeze=False)
    present: set[int] = set()
    for row, index in zip(axes, rows):
        seen = first.images[index]
        shown = {'ground truth': seen.truth}
        for title, sight in sights.items():
            limit, f1 = limits[title]
            heading = f'{title}\nF1 {100 * f1:.1f} from score {limit:.2f} on'
            found = sight.images[index].found[STUDENT]
            shown[heading] = found.above(limit)
        for axis, (heading, boxes) in zip(row, shown.items()):
            _draw(axis, seen.path, boxes, boxes is not seen.truth)
            if index == rows[0]:
                axis.set_title(heading, fontsize=9)
            present.update(boxes.labels.tolist())
    _legend(figure, present, first.classes)
    with writing(out) as part:
        figure.savefig(part, dpi=110)


def _legend(figure: Figure, present: set[int], classes: Sequence[str]) -> None:
    handles = [
        Patch(color=_colour(label), label=classes[label])
        for label in sorted(present)
    ]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=6, fontsize=9
    )


def _draw(axis: Axes, path: str, boxes: Boxes, with_scores: bool) -> None:
    pixels = mmcv.imread(path, channel_order='rgb')
    rows, columns = pixels.shape[:2]
    # Boxes count from the corner of the first pixel, not from its middle.
    axis.imshow(pixels, extent=(0, columns, rows, 0))
    axis.axis('off')
    for box, label, score in zip(
        boxes.boxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist()
    ):
        left, top, right, bottom = box
        colour = _colour(label)
        corner = left, top
        axis.add_patch(
            Rectangle(
                corner,
                right - left,
                bottom - top,
                fill=False,
                linewidth=1.2,
                edgecolor=colour,
            )
        )
        if with_scores:
            axis.text(left, top - 1, f'{score:.2f}', fontsize=5, color=colour)


def _colour(label: int) -> tuple[float, float, float, float]:
    return colormaps['tab20'](label * 2 % 20 + label // 10 % 2)
