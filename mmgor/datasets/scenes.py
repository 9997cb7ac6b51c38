"""Generate scenes: a detection data set that needs no download.

The objects are shapes of five classes on textured, unevenly lit backgrounds.
They are rotated, striped, partly hidden and of many sizes. Each class has a
usual colour, but the colour of an object varies so much that only its shape
tells the class. The seed decides everything.
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

# An object is labelled if this share of its area and this many of its pixels
# are visible.
MIN_VISIBLE = 0.35
MIN_PIXELS = 20
# Standard deviation of an object's hue, as a share of the hue circle. The
# usual hues of two classes are at least 1 / 5 apart.
HUE_SPREAD = 0.06


@dataclass(frozen=True)
class SceneSpec:
    """Settings of a data set of scenes.

    Args:
        num_train (int): Number of training images.
        num_eval (int): Number of evaluation images.
        size (int): Side of the square images in pixels.
        max_objects (int): Largest number of objects drawn in an image; at
            least 2 are drawn.
        seed (int): Seed of all random choices.
        num_teacher (int): Number of images in ``teacher.json``, for a teacher
            that learns from other images than the student. 0: no such file.

    Raises:
        ValueError: If ``max_objects`` is less than 2.
    """

    num_train: int = 192
    num_eval: int = 48
    size: int = 128
    max_objects: int = 4
    seed: int = 0
    num_teacher: int = 0

    def __post_init__(self) -> None:
        if self.max_objects < 2:
            raise ValueError(
                f'max_objects must be at least 2, got {self.max_objects}.'
            )


def generate_scenes(out_dir: Path, spec: SceneSpec) -> Path:
    """Write ``train.json``, ``eval.json`` (COCO format) and ``images/``, and
    ``teacher.json`` if the spec asks for it.

    A folder that already holds these scenes is left as it is.

    Args:
        out_dir (Path): Folder to write to.
        spec (SceneSpec): Settings of the scenes.

    Returns:
        Path: ``out_dir``.
    """
    manifest = out_dir / 'scenes.json'
    wanted = json.dumps(dict(asdict(spec), drawing=_drawing()), indent=1)
    # The position of a split is part of its seed.
    counts = dict(
        train=spec.num_train, eval=spec.num_eval, teacher=spec.num_teacher
    )
    splits = {k: v for k, v in counts.items() if v or k != 'teacher'}
    files = [manifest, *(out_dir / f'{split}.json' for split in splits)]
    if all(f.is_file() for f in files) and manifest.read_text() == wanted:
        return out_dir
    # Removed first and written last, so that an interrupted run is repeated.
    manifest.unlink(missing_ok=True)
    (out_dir / 'images').mkdir(parents=True, exist_ok=True)
    for index, (split, count) in enumerate(splits.items()):
        rng = np.random.default_rng([spec.seed, index])
        _write_split(out_dir, split, count, spec, rng)
    write_text(manifest, wanted)
    return out_dir


def draw_scene(
    rng: np.random.Generator, spec: SceneSpec
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one image.

    Args:
        rng (np.random.Generator): Source of all random choices.
        spec (SceneSpec): Size of the image and number of objects.

    Returns:
        tuple: The image (BGR, uint8, shape (size, size, 3)), and a list with
        the class index and the visible mask (bool, shape (size, size)) of
        each labelled object.
    """
    image = _background(rng, spec.size)
    objects: list[tuple[int, np.ndarray, int]] = []
    for _ in range(int(rng.integers(2, spec.max_objects + 1))):
        label = int(rng.integers(len(CLASSES)))
        mask = shape_mask(rng, CLASSES[label], spec.size)
        _paint(rng, image, mask, _colour(rng, label))
        # A new object hides parts of the earlier ones.
        objects = [(k, visible & ~mask, area) for k, visible, area in objects]
        objects.append((label, mask, int(mask.sum())))
    image = _light_and_noise(rng, image)
    kept = [
        (label, visible)
        for label, visible, area in objects
        if visible.sum() >= max(MIN_PIXELS, MIN_VISIBLE * area)
    ]
    return image, kept


def _drawing() -> str:
    """A hash of the code that draws: other code may draw other images."""
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
        image, objects = draw_scene(rng, spec)
        name = f'{split}_{number:05d}.png'
        write_image(out_dir / 'images' / name, image)
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
    number: int, image_id: int, label: int, visible: np.ndarray
) -> dict:
    rows, columns = (
        np.flatnonzero(visible.any(1)),
        np.flatnonzero(visible.any(0)),
    )
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
    return dict(
        id=number,
        image_id=image_id,
        category_id=label + 1,
        bbox=[left, top, width, height],
        area=int(visible.sum()),
        iscrowd=0,
    )


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth, pale blobs with grain, float32, shape (size, size, 3)."""
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
    """BGR from 0 to 255, around the usual hue of the class."""
    hue = (label / len(CLASSES) + rng.normal(0, HUE_SPREAD)) % 1
    saturation, value = rng.uniform(0.4, 1), rng.uniform(0.5, 1)
    return 255 * np.array(hsv_to_rgb(hue, saturation, value)[::-1])


def _paint(
    rng: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    colour: np.ndarray,
) -> None:
    """Fill the mask with stripes of a colour, in place."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 12)
    rows, columns = np.nonzero(mask)
    phase = rows * np.sin(angle) + columns * np.cos(angle)
    stripes = np.sin(2 * np.pi * phase / period)
    strength = rng.uniform(0, 30)
    image[rows, columns] = colour + strength * stripes[:, None]


def _light_and_noise(
    rng: np.random.Generator, image: np.ndarray
) -> np.ndarray:
    size = image.shape[0]
    ramp = np.linspace(-1, 1, size)
    down, across = rng.uniform(-0.25, 0.25, 2)
    light = 1 + down * ramp[:, None] + across * ramp[None]
    noisy = image * light[..., None] + rng.normal(0, 9, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
