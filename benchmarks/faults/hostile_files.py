"""Gives every command a checkpoint that asks for code to be run.

    python -m benchmarks.faults.hostile_files [--only COMMAND ...]

The pickle is written as torch's archive, in torch's old format and plainly.
No command may run the code. One that needs the file has to name it in its
error; `doctor` and `report` tell of it and go on.
"""

import argparse
import json
import os
import pickle
import runpy
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmgor.cli.main import main as mmgor
from mmgor.cli.main import tools_folder

from .toy_training import Scenes, make_cheap, start, wait
from .writers import SETUP

FORMS = ('archive', 'old', 'plain')


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f'touch {self.mark}',)


def write(content: Any, path: Path, form: str) -> None:
    """Write a checkpoint.

    Args:
        content (Any): Whatever it holds.
        path (Path): The file.
        form (str): One of :data:`FORMS`.
    """
    if form == 'plain':
        path.write_bytes(pickle.dumps(content, 2))
    else:
        archive = form == 'archive'
        torch.save(content, path, _use_new_zipfile_serialization=archive)


def publish(words: list[str]) -> None:
    """tools/publish_student.py, which is no command of ``mmgor``."""
    script = tools_folder() / 'publish_student.py'
    sys.argv = [str(script), *words[1:]]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name='__main__')


class Bench:
    """A trained student, its teacher, and the commands that read them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.evil = folder, folder / 'evil.pth'
        self.scenes = Scenes(folder / 'scenes')
        self.work_dir = folder / 'training'
        self.work_dir.mkdir()
        train = partial(self.scenes.train, self.work_dir, SETUP)
        if wait(start(train, folder / 'log.txt')):
            raise RuntimeError((folder / 'log.txt').read_text())
        last = (self.work_dir / 'last_checkpoint').read_text()
        self.student = self.work_dir / last
        self.config = self._config('student')
        self._run(['export', self.config, self.student, '--out', self._('m')])

    def _(self, name: str) -> Path:
        return self.folder / f'{name}.onnx'

    def _config(self, name: str, **options: Any) -> Path:
        config = self.scenes.config(self.folder / name, SETUP)
        config.merge_from_dict(options)
        config.dump(self.folder / f'{name}.py')
        return self.folder / f'{name}.py'

    def _float(self) -> Path:
        config = self.scenes.config(self.folder / 'float', SETUP)
        config.model = self.scenes.teacher['config']
        config.dump(self.folder / 'float.py')
        return self.folder / 'float.py'

    def commands(self) -> dict[str, list[Any]]:
        """Words of ``mmgor`` that read the hostile file."""
        evil, own = self.evil, self.config
        teacher = self._config(
            'taught', **{'model.teachers.big.checkpoint': str(evil)}
        )
        init = dict(type='Pretrained', checkpoint=str(evil))
        begun = self.folder / 'begun'
        begun.mkdir()
        (begun / 'epoch_1.pth').symlink_to(evil)
        Config.fromfile(own).dump(begun / 'student.py')
        packed = self.folder / 'm.mmgor'
        return {
            'train, teacher': ['train', teacher],
            'train, load_from': [
                'train',
                self._config('loaded', load_from=str(evil)),
            ],
            'train, init_cfg': [
                'train',
                self._config(
                    'begun_from', **{'model.backbone.init_cfg': init}
                ),
            ],
            'train, --resume FILE': ['train', own, '--resume', evil],
            'dry run, teacher': ['train', teacher, '--dry-run'],
            'test': ['test', own, evil, '--work-dir', self.folder / 'test'],
            'export': ['export', own, evil, '--out', self._('new')],
            'pack': ['pack', own, evil, '--out', packed],
            'cost': ['cost', own, evil],
            'verify': ['verify', own, evil, self._('m')],
            'publish': ['publish', evil, self.folder / 'p.pth'],
            'bits': [
                *('bits', own, evil, '--mean-bits', '6'),
                *('--out', self.folder / 'b.py'),
            ],
            'convert, student': [
                *('convert', self._float(), evil),
                *('--out', self.folder / 'c.py'),
            ],
            'doctor': ['doctor', teacher],
            'report': ['report', begun],
        }

    def _run(self, words: list[Any]) -> tuple[int, str]:
        log = self.folder / 'command.txt'
        log.unlink(missing_ok=True)
        words = [str(word) for word in words]
        command = publish if words[0] == 'publish' else mmgor
        status = wait(start(partial(command, words), log))
        return status, log.read_text()

    def attack(self, words: list[Any], form: str) -> dict[str, Any]:
        """Let a command read a hostile file.

        Returns:
            dict: ``ran`` (the code was run), ``named`` (the output names the
            file), ``status`` and the ``last`` line.
        """
        mark = self.folder / 'ran'
        mark.unlink(missing_ok=True)
        content = torch.load(self.student, weights_only=True)
        content['meta']['more'] = Attack(mark)
        write(content, self.evil, form)
        status, told = self._run(words)
        lines = told.strip().splitlines() or ['']
        return dict(
            ran=mark.exists(),
            named=str(self.evil) in told or 'epoch_1.pth' in told,
            status=status,
            last=lines[-1][:200],
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--only', nargs='+', help='commands')
    args = parser.parse_args()
    make_cheap()
    sys.argv = ['mmgor']
    good = done = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, words in bench.commands().items():
            if args.only and name not in args.only:
                continue
            for form in FORMS:
                result = bench.attack(words, form)
                goes_on = words[0] in ('doctor', 'report')
                refused = result['status'] > 0 or goes_on
                safe = not result['ran'] and result['named'] and refused
                done, good = done + 1, good + safe
                verdict = 'refused' if safe else f'NOT SAFE: {result}'
                print(f'{name}, {form}: {verdict}', flush=True)
    print(json.dumps(dict(files=done, refused=good)))
    return int(good < done)


if __name__ == '__main__':
    raise SystemExit(main())
