"""What mmgor does on a GPU, in one JSON file; at most eight minutes.

    make gpu-check          # or: python benchmarks/gpu_check.py --out gpu.json

Nothing is built or downloaded. The steps are `mmgor doctor`, the tests marked
`gpu`, `benchmarks/step_time.py` at 640 px, and the smallest `make demo`, which
trains and tests a student. A step that fails or takes too long does not stop
the others. The file is written after each step.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mmgor.io.atomic_write import writing

ROOT = Path(__file__).resolve().parents[1]
#: Seconds for all steps together.
LIMIT = 480
_LINES = 60


def steps(args: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Step -> arguments of Python, the most important first."""
    times = ['benchmarks/step_time.py', '--device', args.device, '--eager']
    times += ['--size', *map(str, args.size), '--rounds', str(args.rounds)]
    times += ['--json', str(folder / 'step_time.json')]
    demo = ['-m', 'experiments.demo', '--smoke']
    return dict(
        doctor=['-m', 'mmgor', 'doctor'],
        tests=['-m', 'pytest', '-q', '-m', 'gpu', 'tests/test_devices.py'],
        step_time=times,
        demo=[*demo, '--work-dir', str(folder / 'demo')],
    )


def run_step(words: list[str], seconds: float) -> dict[str, Any]:
    """Run Python with arguments.

    Args:
        words (list[str]): The arguments.
        seconds (float): It is stopped after this time.

    Returns:
        dict: ``command``, ``status`` (None if it was stopped), ``seconds``
        and the last lines that it printed.
    """
    start = time.monotonic()
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', *words],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    status: int | None
    try:
        printed, _ = process.communicate(timeout=max(1.0, seconds))
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children
        printed, _ = process.communicate()
        status = None
    return dict(
        command=['python', *words],
        status=status,
        seconds=round(time.monotonic() - start, 1),
        printed=printed.splitlines()[-_LINES:],
    )


def machine(device: str) -> dict[str, Any]:
    """The device and what runs on it."""
    found: dict[str, Any] = dict(
        python=sys.version.split()[0], torch=torch.__version__
    )
    if device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        found.update(
            cuda=torch.version.cuda,
            device=properties.name,
            memory_gib=round(properties.total_memory / 2**30, 1),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default='work_dirs/gpu.json')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--size', type=int, nargs=2, default=[640, 640])
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('expected a GPU that torch can use, found none')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + LIMIT
    result: dict[str, Any] = dict(machine=machine(args.device), steps={})
    folder = args.out.with_name(f'{args.out.stem}_files').resolve()
    folder.mkdir(exist_ok=True)
    for name, words in steps(args, folder).items():
        print(f'{name}: python {" ".join(words)}', flush=True)
        numbers = folder / f'{name}.json'
        numbers.unlink(missing_ok=True)  # of an earlier call
        found = run_step(words, end - time.monotonic())
        if numbers.is_file():
            found['result'] = json.loads(numbers.read_text())
        result['steps'][name] = found
        with writing(args.out) as part:
            part.write_text(json.dumps(result, indent=1))
        print(f'  status {found["status"]}, {found["seconds"]} s', flush=True)
    bad = [k for k, v in result['steps'].items() if v['status'] != 0]
    print(f'{args.out}: ' + (f'not passed: {bad}' if bad else 'all passed'))
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
