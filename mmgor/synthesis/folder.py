"""A folder of synthesised images that mmdet's CocoDataset reads."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmgor.io.atomic_write import write_image, write_text
from mmgor.io.checkpoint import weights_checksum

from .boxes import sample_boxes
from .images import smooth_noise
from .optimize import optimize_images
from .statistics import matched_norms

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class SynthesisSpec:
    """Settings of a folder of synthesised images.

    Args:
        num_images (int): Number of images.
        size (tuple[int, int]): Height and width in pixels.
        steps (int): Steps of the optimisation.
        batch_size (int): Images whose statistics are matched together.
        seed (int): Seed of all random choices.

    Raises:
        ValueError: If a number is too small.
    """

    num_images: int
    size: tuple[int, int]
    steps: int = 50
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict(num_images=1, steps=1, batch_size=2, seed=0)
        for name, bound in least.items():
            value = getattr(self, name)
            if value < bound:
                raise ValueError(
                    f'{name} expected at least {bound}, got {value}.'
                )
        if min(self.size) < 32:
            raise ValueError(
                'size expected a height and width of at least 32 pixels, got '
                f'{self.size}.'
            )


def synthesize(
    model: nn.Module,
    classes: Sequence[str],
    out_dir: Path,
    spec: SynthesisSpec,
    report: Report = lambda done, step, losses: None,
) -> Path:
    """Write ``train.json`` (COCO format) and ``images/``.

    Each batch is written when it is ready. A call that finds the batches of
    an interrupted one goes on from there, with the same result if the
    detector's loss draws nothing at random.

    Args:
        model (nn.Module): See :func:`.optimize_images`.
        classes (Sequence[str]): Names of the labels, in order.
        out_dir (Path): Folder to write to.
        spec (SynthesisSpec): Settings.
        report (Callable): Called after each step with the number of images
            that were ready before, the step, and the value of each part.

    Returns:
        Path: The annotation file.

    Raises:
        FileExistsError: If the folder has something else in it.
        ValueError: See :func:`.optimize_images`.
        FloatingPointError: See :func:`.optimize_images`.
    """
    target = out_dir / 'train.json'
    matched_norms(model)  # before anything is written
    content = _begun(out_dir, spec, model, classes)
    while len(content['images']) < spec.num_images:
        done = len(content['images'])
        count = min(spec.batch_size, spec.num_images - done)
        # A batch depends on its place alone, so that a start anew repeats it.
        seed = int(
            np.random.SeedSequence([spec.seed, done]).generate_state(1)[0]
        )
        generator = torch.Generator().manual_seed(seed)
        objects = [
            sample_boxes(generator, spec.size, len(classes))
            for _ in range(count)
        ]
        boxes, labels = ([*part] for part in zip(*objects))
        images = optimize_images(
            model,
            smooth_noise(generator, count, spec.size),
            boxes,
            labels,
            spec.steps,
            partial(report, done),
        )
        _add(content, out_dir, images, boxes, labels)
        write_text(target, json.dumps(content))
    return target


def _begun(
    out_dir: Path,
    spec: SynthesisSpec,
    model: nn.Module,
    classes: Sequence[str],
) -> dict:
    """What an interrupted call has written, or an empty annotation file."""
    manifest, target = out_dir / 'synthesis.json', out_dir / 'train.json'
    weights = weights_checksum(model.state_dict())
    wanted = json.dumps(dict(asdict(spec), weights_sha256=weights), indent=1)
    if manifest.is_file() and manifest.read_text() == wanted:
        if target.is_file():
            return json.loads(target.read_text())
    elif manifest.exists() or target.exists():
        raise FileExistsError(
            f'{out_dir} has images of another network or of other settings: '
            'expected an empty folder, or the same call again. Type another '
            f'--out, or remove {out_dir}.'
        )
    else:
        write_text(manifest, wanted)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    return dict(images=[], annotations=[], categories=categories)


def _add(
    content: dict,
    out_dir: Path,
    images: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> None:
    """Write the images of a batch, and add them to the annotations."""
    pixels = (255 * images).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for image, box, label in zip(pixels, boxes, labels):
        number = len(content['images']) + 1
        name = f'{number:06d}.png'
        write_image(out_dir / 'images' / name, image)
        height, width = image.shape[:2]
        content['images'].append(
            dict(id=number, file_name=name, width=width, height=height)
        )
        for (x1, y1, x2, y2), category in zip(box.tolist(), label.tolist()):
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=number,
                    category_id=category + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
