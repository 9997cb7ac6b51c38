"""A folder of synthesised images that mmdet's CocoDataset reads."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmgor.io.atomic_write import leftovers, write_image, write_text
from mmgor.io.checkpoint import weights_checksum
from mmgor.trial_run import random_states_kept

from .boxes import sample_boxes
from .detector import check_detector, preprocessing
from .images import smooth_noise
from .optimize import optimize_images

Report = Callable[[int, int, dict[str, float]], None]


# Field of a spec -> what users type.
_FLAGS = dict(
    num_images='--images', steps='--steps', batch_size='--batch', seed='--seed'
)


@dataclass(frozen=True)
class SynthesisSpec:
    """Settings of a folder of synthesised images.

    Args:
        num_images (int): Number of images.
        size (tuple[int, int]): Height and width in pixels.
        steps (int): Steps of the optimisation.
        batch_size (int): Most images whose statistics are matched together.
            All batches are of this size or nearly of one smaller size.
        seed (int): Seed of all random choices.

    Raises:
        ValueError: If a number is too small, or one image would be alone in
            its batch.
    """

    num_images: int
    size: tuple[int, int]
    steps: int = 50
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict(num_images=2, steps=1, batch_size=2, seed=0)
        for name, bound in least.items():
            value = getattr(self, name)
            if value < bound:
                raise ValueError(
                    f'{_FLAGS[name]} expected at least {bound}, got {value}.'
                )
        if min(self.size) < 32:
            raise ValueError(
                '--size expected a height and width of at least 32 pixels, '
                f'got {self.size}.'
            )
        if any(count < 2 for _, count in _batches(self)):
            raise ValueError(
                'a batch needs two images or more, for their statistics: '
                f'expected an even --images with --batch {self.batch_size}, '
                f'got {self.num_images}. Type --images '
                f'{self.num_images + 1}, or a larger --batch.'
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
    an interrupted one goes on from there, with the same result (on a GPU,
    but for rounding). Global random states stay as they are.

    Args:
        model (nn.Module): See :func:`.optimize_images`. Values of parameters
            and buffers are unchanged; it is left in evaluation mode and
            without gradients of parameters.
        classes (Sequence[str]): Names of the labels, in order.
        out_dir (Path): Folder to write to: new, empty, or with what the same
            call has written.
        spec (SynthesisSpec): Settings.
        report (Callable): Called after each step with the number of images
            that were ready before, the step, and the value of each part.

    Returns:
        Path: The annotation file.

    Raises:
        FileExistsError: If the folder has something else in it.
        NotADirectoryError: If it is a file.
        FileNotFoundError: If images of an earlier call were removed.
        ValueError: If images can't be synthesised from such a detector; see
            :func:`.optimize_images`, too.
        FloatingPointError: See :func:`.optimize_images`.
    """
    manifest, target = out_dir / 'synthesis.json', out_dir / 'train.json'
    check_detector(model)  # before anything is written
    wanted = _manifest(model, classes, spec)
    content = _begun(out_dir, wanted, classes)
    ready = len(content['images'])
    for done, count in _batches(spec):
        if done < ready:
            continue
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
        with _seeded(seed):
            images = optimize_images(
                model,
                smooth_noise(generator, count, spec.size),
                boxes,
                labels,
                spec.steps,
                partial(report, done),
            )
        if not done:  # a first batch that fails leaves nothing behind
            write_text(manifest, wanted)
        _add(content, out_dir, images, boxes, labels)
        write_text(target, json.dumps(content))
    return target


def _batches(spec: SynthesisSpec) -> Iterator[tuple[int, int]]:
    """Number of images before each batch, and in it."""
    batches = -(-spec.num_images // spec.batch_size)
    done = 0
    for place in range(batches):
        end = done + spec.num_images // batches
        end += place < spec.num_images % batches
        yield done, end - done
        done = end


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what a detector's loss may draw from, such as a sampler of
    regions."""
    with random_states_kept():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def _manifest(
    model: nn.Module, classes: Sequence[str], spec: SynthesisSpec
) -> str:
    """All that decides the images, as JSON."""
    wanted = dict(
        asdict(spec),
        weights_sha256=weights_checksum(model.state_dict()),
        classes=list(classes),
        preprocessing=preprocessing(model),
    )
    return json.dumps(wanted, indent=1)


def _begun(out_dir: Path, wanted: str, classes: Sequence[str]) -> dict:
    """What an interrupted call has written, or an empty annotation file."""
    manifest, target = out_dir / 'synthesis.json', out_dir / 'train.json'
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(
            f'{out_dir} is a file: expected a folder to write to, new or '
            'empty. Type another --out.'
        )
    if manifest.is_file():
        _check_same(out_dir, manifest.read_text(encoding='utf-8'), wanted)
        if target.is_file():
            content = json.loads(target.read_text(encoding='utf-8'))
            _check_complete(out_dir, content)
            return content
    elif out_dir.exists():
        others = {*out_dir.iterdir()} - {*leftovers(out_dir)}
        if others:
            raise FileExistsError(
                f'{out_dir} has files that this tool did not write, such as '
                f'{min(others).name}: expected a new or an empty folder. Type '
                'another --out.'
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(classes)]
    return dict(images=[], annotations=[], categories=categories)


def _check_same(out_dir: Path, found: str, wanted: str) -> None:
    if found == wanted:
        return
    try:
        old = dict(json.loads(found))
    except (TypeError, ValueError):
        old = {}
    names = [k for k, v in json.loads(wanted).items() if old.get(k) != v]
    raise FileExistsError(
        f'{out_dir} has images of another network or of other settings: '
        'expected a new folder, or the same call again, got other values of '
        f'{", ".join(names)}. Type another --out, or remove {out_dir}.'
    )


def _check_complete(out_dir: Path, content: dict) -> None:
    names = [image['file_name'] for image in content['images']]
    gone = [n for n in names if not (out_dir / 'images' / n).is_file()]
    if gone:
        raise FileNotFoundError(
            f'{out_dir / "images"}: expected the {len(names)} images of '
            f'train.json, got {len(names) - len(gone)}; {gone[0]} is missing. '
            f'Type another --out, or remove {out_dir}.'
        )


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
