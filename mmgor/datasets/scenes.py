"""Generated scenes: a detection data set that needs no download.

Five classes of shapes on textured, unevenly lit backgrounds, rotated, striped,
partly hidden, of many sizes. Each class has its usual colour, from which a
single object strays far enough to be taken for another class's: the shape
decides. Everything follows from the seed.
"""

import hashlib
import json
from colorsys import hsv_to_rgb
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mmgor.io.atomic_write import write_image, write_text

from .shapes import CLASSES, shape_mask

# An object needs this share of its own area visible, and this many pixels.
MIN_VISIBLE = 0.35
MIN_PIXELS = 20
# Of the hue circle. Two classes' usual hues are 1 / 5 apart.
HUE_SPREAD = 0.06


@dataclass(frozen=True)
class SceneSpec:
    """What a data set of scenes consists of.

    Args:
        num_train (int): Training pictures.
        num_eval (int): Evaluation pictures.
        size (int): Side of the square pictures in pixels.
        max_objects (int): Most objects in a picture; at least 2 are drawn.
        seed (int): Decides everything.

    Raises:
        ValueError: If ``max_objects`` is less than 2.
    """

    num_train: int = 192
    num_eval: int = 48
    size: int = 128
    max_objects: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_objects < 2:
            raise ValueError(
                f'max_objects must be at least 2, got {self.max_objects}.'
            )


def generate_scenes(out_dir: Path, spec: SceneSpec) -> Path:
    """Write ``train.json``, ``eval.json`` (COCO format) and ``images/``.

    A folder that already holds these scenes is left as it is.

    Args:
        out_dir (Path): Where to write.
        spec (SceneSpec): What to draw.

    Returns:
        Path: ``out_dir``.
    """
    manifest = out_dir / 'scenes.json'
    wanted = json.dumps(dict(asdict(spec), drawing=_drawing()), indent=1)
    files = [manifest, out_dir / 'train.json', out_dir / 'eval.json']
    if all(f.is_file() for f in files) and manifest.read_text() == wanted:
        return out_dir
    # Gone first, written last: an interrupted drawing is never taken for done.
    manifest.unlink(missing_ok=True)
    (out_dir / 'images').mkdir(parents=True, exist_ok=True)
    for index, split in enumerate(('train', 'eval')):
        rng = np.random.default_rng([spec.seed, index])
        count = spec.num_train if split == 'train' else spec.num_eval
        _write_split(out_dir, split, count, spec, rng)
    write_text(manifest, wanted)
    return out_dir


def draw_scene(
    rng: np.random.Generator, spec: SceneSpec
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one picture.

    Args:
        rng (np.random.Generator): Source of all choices.
        spec (SceneSpec): Size and number of objects.

    Returns:
        tuple: The picture, uint8 of shape (size, size, 3), BGR; and for each
        object its class index and visible mask, bool of shape (size, size).
    """
    picture = _background(rng, spec.size)
    objects: list[tuple[int, np.ndarray, int]] = []
    for _ in range(int(rng.integers(2, spec.max_objects + 1))):
        label = int(rng.integers(len(CLASSES)))
        mask = shape_mask(rng, CLASSES[label], spec.size)
        _paint(rng, picture, mask, _colour(rng, label))
        # What is drawn later hides what was there.
        objects = [(k, visible & ~mask, area) for k, visible, area in objects]
        objects.append((label, mask, int(mask.sum())))
    picture = _light_and_noise(rng, picture)
    kept = [
        (label, visible)
        for label, visible, area in objects
        if visible.sum() >= max(MIN_PIXELS, MIN_VISIBLE * area)
    ]
    return picture, kept


def _drawing() -> str:
    """A hash of the code that draws: other code, other pictures."""
    digest = hashlib.sha256()
    for name in ('scenes.py', 'shapes.py'):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def _write_split(
    out_dir: Path,
    split: str,
    count: int,
    spec: SceneSpec,
    rng: np.random.Generator,
) -> None:
    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(count):
        picture, objects = draw_scene(rng, spec)
        name = f'{split}_{number:05d}.png'
        write_image(out_dir / 'images' / name, picture)
        images.append(
            dict(
                id=number + 1,
                file_name=name,
                width=spec.size,
                height=spec.size,
            )
        )
        for label, visible in objects:
            annotations.append(
                _annotation(len(annotations) + 1, number + 1, label, visible)
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    content = dict(
        images=images, annotations=annotations, categories=categories
    )
    write_text(out_dir / f'{split}.json', json.dumps(content))


def _annotation(
    number: int, image: int, label: int, visible: np.ndarray
) -> dict:
    rows, columns = (
        np.flatnonzero(visible.any(1)),
        np.flatnonzero(visible.any(0)),
    )
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
    return dict(
        id=number,
        image_id=image,
        category_id=label + 1,
        bbox=[left, top, width, height],
        area=int(visible.sum()),
        iscrowd=0,
    )


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth, pale blobs with fine grain."""
    grey = rng.uniform(40, 215, (5, 5, 1))
    tint = rng.uniform(-30, 30, (5, 5, 3))
    smooth = cv2.resize(
        (grey + tint).astype(np.float32),
        (size, size),
        interpolation=cv2.INTER_CUBIC,
    )
    coarse = rng.normal(0, 1, (size // 4, size // 4, 1)).astype(np.float32)
    grain = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return smooth + 10 * grain[..., None]


def _colour(rng: np.random.Generator, label: int) -> np.ndarray:
    """BGR of 0 to 255, around the class's usual hue."""
    hue = (label / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 1
    saturation, value = rng.uniform(0.4, 1), rng.uniform(0.5, 1)
    return 255 * np.array(hsv_to_rgb(hue, saturation, value)[::-1])


def _paint(
    rng: np.random.Generator,
    picture: np.ndarray,
    mask: np.ndarray,
    colour: np.ndarray,
) -> None:
    """Fill the mask with stripes of a colour, in place."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 12)
    rows, columns = np.nonzero(mask)
    phase = rows * np.sin(angle) + columns * np.cos(angle)
    stripes = np.sin(2 * np.pi * phase / period)
    strength = rng.uniform(0, 30)
    picture[rows, columns] = colour + strength * stripes[:, None]


def _light_and_noise(
    rng: np.random.Generator, picture: np.ndarray
) -> np.ndarray:
    size = picture.shape[0]
    ramp = np.linspace(-1, 1, size)
    down, across = rng.uniform(-0.25, 0.25, 2)
    light = 1 + down * ramp[:, None] + across * ramp[None]
    noisy = picture * light[..., None] + rng.normal(0, 9, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
