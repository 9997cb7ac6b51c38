"""Which code and which machine a result comes from."""

import platform
import subprocess
from pathlib import Path

import torch

from mmgor.demo.progress import REPOSITORY


def commit(repository: Path = REPOSITORY) -> str:
    """Short hash of the checkout, '-dirty' if it has any change or a new
    file; 'unknown' if it is no git checkout or there is no git."""
    try:
        name, changes = (
            subprocess.run(
                [
                    'git',
                    '--no-optional-locks',
                    '-C',
                    str(repository),
                    *command,
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for command in (
                ['rev-parse', '--short=10', 'HEAD'],
                ['status', '--porcelain'],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return f'{name}-dirty' if changes else name


def device(cpu_info: Path = Path('/proc/cpuinfo')) -> str:
    """Name of the first GPU, or else of the processor with the vector
    instructions that PyTorch uses, on which rounding depends; no host name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    text = cpu_info.read_text() if cpu_info.is_file() else ''
    pairs = (line.partition(':') for line in text.splitlines())
    models = (value for key, _, value in pairs if key.strip() == 'model name')
    name = next(models, platform.processor() or platform.machine())
    return f'{name.strip()}, {torch.backends.cpu.get_cpu_capability()}'
