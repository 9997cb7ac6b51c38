"""Images with their boxes, for a page: a JPEG below, SVG above."""

import base64
from collections.abc import Sequence
from html import escape

import cv2
import mmcv

from mmgor.pages.style import COLOURS

from .matching import Boxes, match

#: Longest side of an image in the page, in pixels.
SIDE = 480
_QUALITY = 82
# Size of text and width of lines, relative to the image's longer side.
_TEXT, _LINE = 0.032, 0.005
# Width of a letter relative to the size of the text, rather too large.
_LETTER = 0.66


def jpeg(path: str) -> tuple[str, int, int]:
    """An image file as a data URI, made smaller if needed.

    Args:
        path (str): The file.

    Returns:
        tuple[str, int, int]: The URI, and the width and height of the file's
        image in pixels.

    Raises:
        OSError: If the file can't be read as an image.
    """
    try:
        pixels = mmcv.imread(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'image not found: {path}.') from error
    if pixels is None:
        raise OSError(f'{path} could not be read as an image.')
    height, width = pixels.shape[:2]
    share = min(1.0, SIDE / max(height, width))
    if share < 1:
        size = max(1, round(width * share)), max(1, round(height * share))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, content = cv2.imencode('.jpg', pixels, quality)
    text = base64.b64encode(content.tobytes()).decode()
    return f'data:image/jpeg;base64,{text}', width, height


def defined(key: str, picture: tuple[str, int, int]) -> str:
    """SVG that is not seen and defines an image for :func:`drawn`.

    Args:
        key (str): Its id in the page.
        picture (tuple[str, int, int]): From :func:`jpeg`.
    """
    uri, width, height = picture
    return (
        '<svg class="hidden" aria-hidden="true"><defs>'
        f'<image id="{key}" width="{width}" height="{height}" '
        f'preserveAspectRatio="none" href="{uri}"/></defs></svg>'
    )


def drawn(
    key: str,
    size: tuple[int, int],
    boxes: Boxes,
    names: Sequence[str],
    odd: Sequence[bool],
    title: str,
) -> str:
    """An image with boxes, class names and scores.

    Args:
        key (str): Id of the image, see :func:`defined`.
        size (tuple[int, int]): Its width and height in pixels.
        boxes (Boxes): What is drawn; scores of 1 are not written.
        names (Sequence[str]): Names of the labels.
        odd (Sequence[bool]): Which boxes are dashed.
        title (str): Text in place of the image, for those who can't see it.
    """
    width, height = size
    shapes = ''.join(
        _box(box, label, score, dashed, names, size)
        for box, label, score, dashed in zip(
            boxes.boxes.tolist(),
            boxes.labels.tolist(),
            boxes.scores.tolist(),
            odd,
        )
    )
    return (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}"><use href="#{key}"/>{shapes}</svg>'
    )


def _box(
    box: Sequence[float],
    label: int,
    score: float,
    dashed: bool,
    names: Sequence[str],
    picture: tuple[int, int],
) -> str:
    left, top, right, bottom = box
    side = max(picture)
    name = names[label] if label < len(names) else f'class {label}'
    text = name if score == 1 else f'{name} {score:.2f}'
    size = _TEXT * side
    # Inside of the image, if it is wide enough.
    start = max(0.0, min(left, picture[0] - _LETTER * size * len(text)))
    # Above the box, or inside of it at the top of the image.
    line = top - 0.25 * size if top > 1.2 * size else top + size
    dash = f' stroke-dasharray="{0.015 * side:.2f}"' if dashed else ''
    return (
        f'<g class="c{label % COLOURS}"><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{max(0, right - left):.1f}" '
        f'height="{max(0, bottom - top):.1f}" '
        f'stroke-width="{_LINE * side:.2f}"{dash}/>'
        f'<text x="{start:.1f}" y="{line:.1f}" '
        f'style="font-size:{size:.2f}px">{escape(text)}</text></g>'
    )


def missed(found: Boxes, truth: Boxes) -> list[bool]:
    """For each object, whether no detection finds it."""
    hit = set(match(found, truth).tolist())
    return [index not in hit for index in range(len(truth))]


def wrong(found: Boxes, truth: Boxes) -> list[bool]:
    """For each detection, whether it finds no object."""
    return [index < 0 for index in match(found, truth).tolist()]
