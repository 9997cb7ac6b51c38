"""The part of the page with images."""

from html import escape
from pathlib import Path

from mmgor.pages import figure

from .detections import STUDENT, Seen, Sight
from .matching import IOU, image_f1
from .pictures import defined, drawn, jpeg, missed, wrong
from .sections import IMAGES, section

#: Images shown as the best, and as many as the worst.
SHOWN = 4


def image_section(sight: Sight) -> str:
    """Best and worst images: ground truth, teachers and student.

    Args:
        sight (Sight): From :func:`.detections.look`.

    Raises:
        OSError: If an image can't be read.
    """
    missing = [
        f'Teacher {name} is left out: {why}'
        for name, why in sight.missing.items()
    ]
    models = list(sight.images[0].found) if sight.images else []
    if not models:
        return section(IMAGES, '', ['The evaluation set has no image.'])
    limits = {name: sight.best_threshold(name) for name in models}
    best, worst = best_and_worst(sight.images, limits[STUDENT][0])
    order = [*(name for name in models if name != STUDENT), STUDENT]
    parts = []
    for heading, chosen in (('Worst', worst), ('Best', best)):
        rows = ''.join(
            _row(f'{heading[0]}{number}', seen, order, limits, sight.classes)
            for number, seen in enumerate(chosen)
        )
        parts.append(f'<h3>{heading} images of the student</h3>{rows}')
    scores = '; '.join(
        f'{name}: score {limit:.2f}, F1 {f1:.3f}'
        for name, (limit, f1) in limits.items()
    )
    return section(
        IMAGES,
        ''.join(parts),
        [
            f'{len(sight.images)} of {sight.size} evaluation images, evenly '
            'spread, were looked at. A detection is right if its class is '
            f'and its IoU is at least {IOU}. F1 is the harmonic mean of '
            'precision and recall.',
            'Each model shows its detections from the score on that gives it '
            f'the best F1 on these images ({scores}).',
            'Images are sorted by the F1 of the student in the image; of '
            'equal ones, those with more objects come first.',
            'Dashed boxes: objects that the student missed, and detections '
            'that are wrong.',
            *missing,
        ],
    )


def best_and_worst(
    images: list[Seen], threshold: float
) -> tuple[list[Seen], list[Seen]]:
    """The images with the highest and with the lowest F1 of the student.

    Args:
        images (list[Seen]): All that were looked at.
        threshold (float): Score from which detections count.

    Returns:
        tuple[list[Seen], list[Seen]]: Best and worst, at most :data:`SHOWN`
        each. No image is in both.
    """
    scored = [
        (image_f1(s.found[STUDENT], s.truth, threshold), len(s.truth), s)
        for s in images
    ]
    scored.sort(key=lambda each: (-each[0], -each[1]))
    half = min(SHOWN, len(scored) // 2)
    best = scored[: max(half, 1)]
    rest = scored[len(best) :]
    rest.sort(key=lambda each: (each[0], -each[1]))
    return [s for *_, s in best], [s for *_, s in rest[:half]]


def _row(
    key: str,
    seen: Seen,
    order: list[str],
    limits: dict[str, tuple[float, float]],
    classes: tuple[str, ...],
) -> str:
    picture = jpeg(seen.path)
    size = picture[1:]
    shown = {name: seen.found[name].above(limits[name][0]) for name in order}
    student = shown[STUDENT]
    lost = missed(student, seen.truth)
    parts = [
        figure(
            'ground truth',
            f'{len(lost)} objects, {sum(lost)} missed by the student',
            drawn(key, size, seen.truth, classes, lost, 'ground truth'),
        )
    ]
    for name in order:
        bad = wrong(shown[name], seen.truth)
        f1 = image_f1(seen.found[name], seen.truth, limits[name][0])
        parts.append(
            figure(
                name,
                f'{len(bad)} detections, {sum(bad)} wrong, F1 {f1:.2f}',
                drawn(key, size, shown[name], classes, bad, name),
            )
        )
    file = escape(Path(seen.path).name)
    return (
        f'{defined(key, picture)}<h4>{file}</h4>'
        f'<div class="charts pictures">{"".join(parts)}</div>'
    )
