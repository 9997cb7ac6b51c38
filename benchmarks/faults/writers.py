"""All that writes files, each with its inputs ready."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.records import Record, append_record
from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.deploy.export.exporter import export_detector
from mmgor.deploy.loading import class_names, load_detector
from mmgor.deploy.packing.pack import pack_model
from mmgor.distillation.teachers.cache import OutputCache
from mmgor.hooks import plot_weight_curves, read_scalars
from mmgor.io.atomic_write import write_image
from mmgor.io.checksums import write_checkpoint
from mmgor.quantization import layer_table, save_table
from mmgor.training_report import write_report
from tests.support.models import make_batch

from .toy_training import Scenes, start, wait

SETUP = 'epochs, no workers'


class Writer(NamedTuple):
    """Something that writes files.

    Attributes:
        name (str): What it writes.
        write (Callable): Writes it into a folder.
        warns (bool): If it can't be written, it warns and goes on.
        many (bool): It writes files that stand for themselves. The next
            start writes those that are missing.
    """

    name: str
    write: Callable[[Path], Any]
    warns: bool = False
    many: bool = False


def prepare(folder: Path) -> list[Writer]:
    """Train a tiny student, and make the writers of what can be made of it.

    Args:
        folder (Path): Gets the training.

    Raises:
        RuntimeError: If the training fails.
    """
    scenes, work_dir = Scenes(folder / 'scenes'), folder / 'training'
    work_dir.mkdir()
    child = start(partial(scenes.train, work_dir, SETUP), folder / 'log.txt')
    if wait(child):
        raise RuntimeError((folder / 'log.txt').read_text())
    cfg = scenes.config(work_dir, SETUP)
    checkpoint = work_dir / (work_dir / 'last_checkpoint').read_text()
    model = load_detector(cfg, str(checkpoint))
    classes = class_names(cfg, model)
    records = read_scalars(next(work_dir.glob('*/vis_data/scalars.json')))
    table = layer_table(model)
    weights = BytesIO()
    torch.save(model.state_dict(), weights)
    image = np.random.default_rng(0).integers(
        256, size=(64, 64, 3), dtype='u1'
    )

    def export(name: str, out: Path) -> None:
        export_detector(model, cfg, out / name, (64, 64), classes)

    return [
        Writer(
            'checkpoint',
            lambda out: write_checkpoint(out / 'a.pth', weights.getvalue()),
        ),
        Writer('teacher cache', _cache, warns=True, many=True),
        Writer('record of an experiment', _record),
        Writer('table of bits', lambda out: save_table(table, out / 't.json')),
        Writer(
            'curves', lambda out: plot_weight_curves(records, out / 'c.png')
        ),
        Writer('image', lambda out: write_image(out / 'i.png', image)),
        Writer('scenes', _scenes, many=True),
        Writer(
            'packed file', lambda out: pack_model(model, out / 'm.mmgor', {})
        ),
        Writer(
            'report',
            lambda out: write_report(
                work_dir, out / 'r.html', images=0, tell=str
            ),
        ),
        Writer('ONNX', partial(export, 'm.onnx')),
        Writer('OpenVINO', partial(export, 'm.xml')),
    ]


def _scenes(out: Path) -> None:
    spec = SceneSpec(num_train=3, num_eval=2, size=64, max_objects=3)
    generate_scenes(out / 'scenes', spec)


def _record(out: Path) -> None:
    names = ('float', 'float', 0, 'scenes', 3, 0.5, 0.7, 'abc', {}, 'def')
    more = ('cpu', 1.0, None, None, 'done', '')
    append_record(out / 'results.jsonl', Record(*names, *more))


def _cache(out: Path) -> None:
    """The outputs have to be there, whether they can be kept or not."""
    cache, batch = OutputCache('big', out), make_batch()
    cache.bind(torch.nn.Linear(1, 1), [])

    def run(inputs: torch.Tensor, samples: list) -> dict[str, Any]:
        return dict(neck=(inputs + 1,))

    samples = batch['data_samples']
    got = cache.through(batch['inputs'], samples, ['neck'], run)
    torch.testing.assert_close(got['neck'][0], batch['inputs'] + 1)
