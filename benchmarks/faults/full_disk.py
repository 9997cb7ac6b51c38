"""Fills the disk under a training and under every writer.

    python -m benchmarks.faults.full_disk [--sizes 12]     # as root, on Linux

The disk is a small tmpfs. A training runs out of space at the start, in its
logs or in a checkpoint. It has to say so, every checkpoint that it left has to
be good, and with more space it has to end, resumed, as one that never lacked
any, bit for bit. Every writer of kill_writers is given a share of the space
that it needs. It has to say so, too, and to leave the old files as they were
and nothing else. The teacher cache warns and goes on.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mmgor.io.checksums import check_intact

from .kill_training import Reference
from .kill_writers import OLD, visible
from .toy_training import (
    Scenes,
    differences,
    end_state,
    make_cheap,
    start,
    wait,
)
from .writers import SETUP, Writer, prepare

SHARES = (0.0, 0.1, 0.5, 0.9)
FULL = 'No space left on device'
_LARGE = 1 << 28


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at a folder.

    Raises:
        PermissionError: If this process may not mount one.
    """
    folder.mkdir()
    _mount(folder, f'size={size}')
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def _mount(folder: Path, options: str) -> None:
    command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(
            f'a tmpfs could not be mounted at {folder} ({done.stderr}); '
            'expected Linux and the rights of root.'
        )


def fill(folder: Path, left: int) -> None:
    """Leave so many bytes of a disk free."""
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    (folder / '.filler').write_bytes(b'\0' * max(free - left, 0))


def fill_training(
    scenes: Scenes, reference: Reference, folder: Path, size: int
) -> dict[str, Any]:
    """Train on a small disk, then go on with more space.

    Args:
        scenes (Scenes): The data.
        reference (Reference): What it has to be equal to.
        folder (Path): Is made.
        size (int): Bytes of the disk.

    Returns:
        dict: ``status`` of the first start, whether it ``said`` that the disk
        is full, number of ``intact`` and ``damaged`` checkpoints that it left,
        ``half`` files and ``differences`` after the second start.
    """
    log = folder.parent / f'{folder.name}.log'
    with small_disk(folder, size):
        work_dir = folder / 'run'
        status = wait(start(partial(scenes.train, work_dir, SETUP), log))
        said = FULL in log.read_text()
        checks = [_is_good(path) for path in work_dir.glob('*.pth')]
        half = [path.name for path in work_dir.glob('.*')]
        _mount(folder, f'remount,size={_LARGE}')
        resumed = partial(scenes.train, work_dir, SETUP, resume=True)
        again = wait(start(resumed, log))
        found = ['did not end'] if again else []
        if not again:
            found = differences(reference.end, end_state(work_dir))
    return dict(
        size=size,
        status=status,
        said=said,
        intact=sum(checks),
        damaged=len(checks) - sum(checks),
        half=half,
        differences=found[:5],
    )


def _is_good(path: Path) -> bool:
    try:
        check_intact(path)
    except ValueError:
        return False
    return True


def fill_writer(
    writer: Writer, folder: Path, new: dict[str, bytes], share: float
) -> dict[str, Any]:
    """Let a writer write where old files are, with too little space.

    Args:
        writer (Writer): What writes.
        folder (Path): Is made.
        new (dict[str, bytes]): What it writes where there is space.
        share (float): Of the bytes that it needs.

    Returns:
        dict: What happened, and ``good``.
    """
    log = folder.parent / f'{folder.name}.log'
    needed = sum(len(content) for content in new.values())
    with small_disk(folder, _LARGE):
        for name in new if not writer.warns else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(OLD)
        old = visible(folder)
        fill(folder, int(share * needed))
        status = wait(start(partial(writer.write, folder), log))
        (folder / '.filler').unlink()
        after = visible(folder)
        whole = all(v in (OLD, new.get(k)) for k, v in after.items())
        kept = whole if writer.many else after == old
        left = sorted(path.name for path in folder.rglob('.*'))
        written = status == 0 and len(after) == len(new)
    said = FULL in log.read_text()
    refused = (status == 0) == writer.warns and said and kept
    return dict(
        writer=writer.name,
        share=share,
        status=status,
        said=said,
        kept=kept,
        left=left,
        good=(refused or written) and not left,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--sizes', type=int, default=12, help='of the disk')
    parser.add_argument('--only', nargs='+', help='names of writers')
    args = parser.parse_args()
    make_cheap()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = Scenes(folder / 'scenes')
        reference = Reference(scenes, SETUP, folder / 'reference')
        total = sum(
            path.stat().st_size
            for path in (folder / 'reference').rglob('*')
            if path.is_file()
        )
        for i in range(args.sizes):
            # The checkpoint to be written needs space beside the others.
            size = int((i + 0.5) / args.sizes * 2 * total)
            result = fill_training(scenes, reference, folder / f'd{i}', size)
            fine = result['status'] == 0 or result['said']
            broken = (
                result['damaged'] or result['half'] or result['differences']
            )
            result['good'] = fine and not broken
            results.append(result)
            print(f'training, {size >> 10} KiB: {result}', flush=True)
        (folder / 'writers').mkdir()
        for number, writer in enumerate(prepare(folder / 'writers')):
            if args.only and writer.name not in args.only:
                continue
            straight = folder / f'w{number}'
            straight.mkdir()
            wait(start(partial(writer.write, straight), folder / 'log.txt'))
            for share in SHARES:
                place = folder / f'w{number}_{share}'
                result = fill_writer(writer, place, visible(straight), share)
                results.append(result)
                print(f'{writer.name}: {result}', flush=True)
    good = sum(result['good'] for result in results)
    print(json.dumps(dict(fillings=len(results), good=good)))
    return int(good < len(results))


if __name__ == '__main__':
    raise SystemExit(main())
