"""What the student and its teachers find on evaluation images."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmgor.datasets.image_files import spread
from mmgor.io.class_names import dataset_classes
from mmgor.io.config_reader import loader_datasets
from mmgor.registry import DATASETS

from .matching import Boxes, best_threshold, without_ignored

_EVERY = 10


@dataclass(frozen=True)
class Seen:
    """An evaluation image.

    Attributes:
        path (str): The image file.
        truth (Boxes): Its objects; crowds and ignored ones are left out.
        found (dict[str, Boxes]): Detections by model: 'student', or 'teacher'
            and its name; without those in crowds.
    """

    path: str
    truth: Boxes
    found: dict[str, Boxes]


@dataclass(frozen=True)
class Sight:
    """What was seen on some of a data set's images.

    Attributes:
        images (list[Seen]): The images.
        size (int): Number of images in the data set.
        classes (tuple[str, ...]): Names of the labels.
        missing (dict[str, str]): Teacher -> why it was not run.
    """

    images: list[Seen]
    size: int
    classes: tuple[str, ...]
    missing: dict[str, str]

    def best_threshold(self, model: str) -> tuple[float, float]:
        """The score threshold with a model's best F1 on these images, and
        that F1, 0 to 1; see :func:`.matching.best_threshold`."""
        return best_threshold(
            [(seen.found[model], seen.truth) for seen in self.images]
        )


STUDENT = 'student'


def look(
    cfg: Config,
    model: Any,
    count: int,
    tell: Callable[[str], None],
    with_teachers: bool = True,
) -> Sight:
    """Run the student and its teachers on evaluation images.

    Args:
        cfg (Config): The config of the training.
        model (nn.Module): The student with its weights.
        count (int): Number of images, spread evenly over the data set.
        tell (Callable): Takes lines on the progress.
        with_teachers (bool): False: the student alone.

    Raises:
        ValueError: If the config has no single evaluation set that is built
            from its config, or its boxes are no plain ones.
        FileNotFoundError: If a file of the data set does not exist.
    """
    dataset = evaluation_set(cfg)
    classes = dataset_classes(dataset, 'val_dataloader.dataset') or ()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    model.to(device)
    teachers, missing = (
        _teachers(model, classes, device) if with_teachers else ({}, {})
    )
    size = len(dataset)
    indices = spread(range(size), count)
    images = []
    for number, index in enumerate(indices, 1):
        images.append(_see(dataset, index, model, teachers, classes))
        if number % _EVERY == 0 or number == len(indices):
            tell(f'{number} of {len(indices)} images')
    return Sight(images, size, tuple(classes), missing)


def evaluation_set(cfg: Config) -> Any:
    """The data set that a config evaluates on.

    Raises:
        ValueError: If the config has none, or several.
    """
    found = loader_datasets(cfg, 'val_dataloader')
    found = found or loader_datasets(cfg, 'test_dataloader')
    if len(found) != 1:
        raise ValueError(
            f'the config has {len(found)} evaluation data sets; expected one '
            'in val_dataloader or test_dataloader.'
        )
    with redirect_stdout(StringIO()):  # pycocotools prints
        return DATASETS.build(found[0])


def _teachers(
    model: Any, classes: Sequence[str], device: torch.device
) -> tuple[dict[str, Any], dict[str, str]]:
    """The teachers that know the student's classes, and why others do not
    take part."""
    ready, missing = {}, {}
    for name, teacher in getattr(model, 'teachers', {}).items():
        try:
            teacher.build(device)
            teacher.class_index(classes or None)
        except (OSError, RuntimeError, ValueError) as error:
            missing[name] = str(error)
        else:
            ready[name] = teacher
    return ready, missing


@torch.no_grad()
def _see(
    dataset: Any,
    index: int,
    model: Any,
    teachers: dict[str, Any],
    classes: Sequence[str],
) -> Seen:
    info = dataset.get_data_info(index)
    batch = pseudo_collate([dataset[index]])
    data = model.data_preprocessor(batch, False)
    inputs, samples = data['inputs'], data['data_samples']
    samples = model.predict(inputs, samples, rescale=True)
    truth, ignored = truth_of(info)

    def counted(samples: Any) -> Boxes:
        return without_ignored(
            _boxes(samples[0].pred_instances), truth, ignored
        )

    found = {STUDENT: counted(samples)}
    for name, teacher in teachers.items():
        seen = teacher.predict(
            inputs, model.data_preprocessor, samples, classes or None
        )
        found[f'teacher {name}'] = counted(seen)
    return Seen(info['img_path'], truth, found)


def _boxes(found: Any) -> Boxes:
    boxes: Tensor = getattr(found.bboxes, 'tensor', found.bboxes)
    if boxes.shape[-1] != 4:
        raise ValueError(
            f'the boxes have {boxes.shape[-1]} numbers each; only those with '
            'left, top, right and bottom are drawn.'
        )
    return Boxes(
        boxes.float().cpu(), found.labels.cpu(), found.scores.float().cpu()
    )


def truth_of(info: dict[str, Any]) -> tuple[Boxes, Tensor]:
    """The objects of an image, and its regions that do not count.

    Args:
        info (dict): Of an image, as mmdet's data sets give it.
    """
    entries = info.get('instances', [])
    boxes = torch.tensor([x['bbox'] for x in entries], dtype=torch.float32)
    labels = torch.tensor([x['bbox_label'] for x in entries]).long()
    ignored = torch.tensor([bool(x['ignore_flag']) for x in entries]).bool()
    boxes = boxes.reshape(-1, 4)
    kept = boxes[~ignored]
    truth = Boxes(kept, labels[~ignored], torch.ones(len(kept)))
    return truth, boxes[ignored]
