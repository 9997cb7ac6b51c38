"""Kills every writer at each of its writes: no half file, the old one stays.

    python -m benchmarks.faults.kill_writers [--only NAME ...]

Checkpoints, teacher caches, records of experiments, tables, curves, images,
packed files, reports and exported files are written where older ones are. The
process kills itself at each call of ``os.fsync``, ``os.replace``,
``Path.unlink`` and ``Path.write_bytes`` in turn, through which the writers
put their files in place. Writes into open streams are not watched, nor those
of compiled code. Each file must then be the old one, byte for byte, or have
the length of the new one, to 2 %: its bytes may name the time and the folder.
What a kill leaves behind has to be hidden.
"""

import argparse
import json
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .kill_training import Writes
from .toy_training import make_cheap, start, wait
from .writers import Writer, prepare

OLD = b'old\n'


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are not hidden, nor in a hidden folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
        and not any(
            part.startswith('.') for part in path.relative_to(folder).parts
        )
    }


def _write(writer: Writer, folder: Path, last: float) -> None:
    writes = Writes(last, 0.5)
    writes.watch()
    writer.write(folder)
    (folder / '.writes').open('w').write(str(writes.number))


def campaign(
    writers: list[Writer], folder: Path, tell: Callable[[str], Any] = print
) -> list[dict[str, Any]]:
    """Kill each writer at each of its writes.

    Args:
        writers (list[Writer]): From :func:`.writers.prepare`.
        folder (Path): Gets a folder for each kill.
        tell (Callable): Takes lines on the progress.

    Returns:
        list[dict]: ``writer``, ``kills`` and ``bad``: which write it was, and
        the files that were neither old nor new.
    """
    results = []
    for number, writer in enumerate(writers):
        straight = folder / f'{number}'
        straight.mkdir()
        log = folder / 'log.txt'
        if wait(start(partial(_write, writer, straight, float('inf')), log)):
            raise RuntimeError(log.read_text())
        new = visible(straight)
        count = int((straight / '.writes').read_text())
        bad = []
        for last in range(1, count + 1):
            place = folder / f'{number}_{last}'
            for name in new:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(OLD)
            status = wait(start(partial(_write, writer, place, last), log))
            odd = [
                name
                for name, content in visible(place).items()
                if not _is_whole(name, content, new)
            ]
            if status != -signal.SIGKILL or odd:
                bad.append((last, status, odd))
            shutil.rmtree(place)
        results.append(dict(writer=writer.name, kills=count, bad=bad))
        tell(f'{writer.name}: {count} kills, {bad or "no half file"}')
    return results


def _is_whole(name: str, content: bytes, new: dict[str, bytes]) -> bool:
    """Whether it is an old file, or as long as a new one, to 2 %."""
    if content == OLD:
        return True
    if name.endswith('.jsonl'):  # is added to
        return content == OLD + new[name]
    length = len(new.get(name, b''))
    return abs(len(content) - length) < 0.02 * length


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--only', nargs='+', help='names of writers')
    args = parser.parse_args()
    make_cheap()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writers = [
            writer
            for writer in prepare(folder)
            if args.only is None or writer.name in args.only
        ]
        results = campaign(
            writers, folder, lambda line: print(line, flush=True)
        )
    kills = sum(result['kills'] for result in results)
    bad = sum(len(result['bad']) for result in results)
    print(json.dumps(dict(kills=kills, whole=kills - bad)))
    return int(bad > 0)


if __name__ == '__main__':
    raise SystemExit(main())
