"""Give every command a folder with one odd image.

The image is cut in the middle, empty, no image at all, of 16 bits, with an
alpha channel, grey, rotated by its EXIF data, 1 x 1 pixel, far wider than
high, or has spaces and other alphabets in its name. Each command must do its
work, as mmdet does, or end with one error that names the file.

python -m benchmarks.faults.odd_images [--only NAME ...]
"""

import argparse
import contextlib
import io
import json
import logging
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

import benchmarks.faults.toy_student  # noqa: F401
from mmgor.cli.main import main as mmgor
from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.runtime.detector import Detector
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg
from tests.support.training import config_file


def cut(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def png16(path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(path), pixels.astype(np.uint16) * 257)


def rgba(path: Path, pixels: np.ndarray) -> None:
    alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
    cv2.imwrite(str(path), np.concatenate([pixels, alpha], 2))


def rotated(path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # by 90 degrees
    Image.fromarray(pixels).save(path, exif=exif)


def save(path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(path), pixels)


Make = Callable[[Path, np.ndarray], Any]
#: Name -> suffix, height, width, and how the file is written. 0: as it is.
KINDS: dict[str, tuple[str, int, int, Make]] = {
    'sound': ('a.png', 0, 0, save),
    'cut jpeg': ('a.jpg', 0, 0, cut),
    'cut png': ('a.png', 0, 0, cut),
    'empty': ('a.jpg', 0, 0, lambda path, _: path.write_bytes(b'')),
    'text': ('a.jpg', 0, 0, lambda path, _: path.write_text('no image')),
    '16 bits': ('a.png', 0, 0, png16),
    'alpha': ('a.png', 0, 0, rgba),
    'grey': ('a.jpg', 0, 0, lambda path, x: save(path, x[..., 0])),
    'exif': ('a.jpg', 48, 64, rotated),
    '1 x 1': ('a.png', 1, 1, save),
    '10000 x 64': ('a.jpg', 64, 10000, save),
    '10000 x 9': ('a.png', 9, 10000, save),
    'name': ('straße 東京 (1)\'s "a" & b%20.jpg', 0, 0, save),
}


class Folder:
    """A config, its data with one odd image per split, and a checkpoint."""

    def __init__(self, root: Path, kind: str, sound: Path) -> None:
        shutil.copytree(sound, root)
        text = (sound / 'tiny.py').read_text()
        self.config = root / 'tiny.py'
        self.config.write_text(text.replace(str(sound), str(root)))
        self.data = root / 'scenes'
        self.images = []
        for split in ('train', 'eval'):
            self._put(split, *KINDS[kind])
        self.root = root

    def _put(
        self, split: str, name: str, height: int, width: int, make: Make
    ) -> None:
        """Put the image in the place of the split's first one."""
        file = self.data / f'{split}.json'
        content = json.loads(file.read_text())
        entry = content['images'][0]
        old = self.data / 'images' / entry['file_name']
        pixels = cv2.imread(str(old))
        if height:
            pixels = cv2.resize(pixels, (width, height))
        path = old.with_name(f'{split}_{name}')
        old.unlink()
        make(path, pixels)
        self.images.append(path)
        size = dict(height=pixels.shape[0], width=pixels.shape[1])
        for box in content['annotations']:
            if box['image_id'] == entry['id']:
                factors = size['width'] / 64, size['height'] / 64
                box['bbox'] = [
                    x * factors[i % 2] for i, x in enumerate(box['bbox'])
                ]
                box['area'] = box['bbox'][2] * box['bbox'][3]
        entry.update(file_name=path.name, **size)
        file.write_text(json.dumps(content))


def save_float_config(cfg: Config, folder: Path) -> None:
    """The config and weights of a float detector for ``mmgor convert``."""
    cfg.model = retinanet_cfg(classes=len(CLASSES))
    cfg.custom_hooks = []
    cfg.optim_wrapper.pop('paramwise_cfg')
    cfg.dump(folder / 'float.py')
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'float.pth')


def command(run: Callable[[], Any]) -> tuple[str, str]:
    """'' or an error, and what a command printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            run()
        except SystemExit as stop:
            fault = '' if stop.code in (0, None) else str(stop.code)
        except BaseException as error:
            fault = f'{type(error).__name__}: {error}'
            traceback.print_exc()
        else:
            fault = ''
    return fault, text.getvalue()


def commands(folder: Folder, sound: Path) -> dict[str, Callable[[], Any]]:
    """Each command with its arguments."""
    config, work = str(folder.config), str(folder.root / 'work')
    checkpoint = str(sound / 'work' / 'epoch_1.pth')
    return {
        'doctor': lambda: mmgor(['doctor', config]),
        'train': lambda: mmgor(['train', config, '--work-dir', work]),
        'test': lambda: mmgor(
            ['test', config, checkpoint, '--work-dir', work]
        ),
        'convert': lambda: mmgor(
            [
                'convert',
                str(sound / 'float.py'),
                str(sound / 'float.pth'),
                '--data',
                str(folder.data),
                '--out',
                str(folder.root / 'out.py'),
            ]
        ),
        'detect': lambda: [
            Detector(sound / 'student.onnx', score_thr=0.0)(image)
            for image in folder.images
        ],
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--only', nargs='+', choices=[*KINDS], default=KINDS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    logging.disable(logging.ERROR)
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        sound = Path(name) / 'good'
        sound.mkdir()
        config = config_file(sound)
        save_float_config(Config.fromfile(config), sound)
        mmgor(['train', str(config), '--work-dir', str(sound / 'work')])
        mmgor(
            [
                'export',
                str(config),
                str(sound / 'work' / 'epoch_1.pth'),
                '--out',
                str(sound / 'student.onnx'),
            ]
        )
        for kind in args.only:
            folder = Folder(Path(name) / kind.replace(' ', '_'), kind, sound)
            for word, run in commands(folder, sound).items():
                fault, text = command(run)
                named = any(p.name in fault + text for p in folder.images)
                faults += bool(fault) and not named
                end = 'named' if named else 'NOT NAMED'
                print(
                    f'{kind:12} {word:8} {end if fault else "done":10} '
                    f'{fault[:200]}',
                    flush=True,
                )
    return int(faults > 0)


if __name__ == '__main__':
    raise SystemExit(main())
