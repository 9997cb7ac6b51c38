"""Which code and which machine a result comes from."""

import platform
import subprocess
from pathlib import Path

import torch

from . import REPOSITORY


def commit(repository: Path = REPOSITORY) -> str:
    """Short hash of the checkout, '-dirty' if a file of it has changed;
    'unknown' if it is not a git checkout or there is no git."""
    git = ['git', '--no-optional-locks', '-C', str(repository), 'describe']
    options = ['--always', '--dirty', '--exclude=*', '--abbrev=10']
    try:
        done = subprocess.run(
            [*git, *options], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return done.stdout.strip()


def device(cpu_info: Path = Path('/proc/cpuinfo')) -> str:
    """Name of the first GPU, or else of the processor with the vector
    instructions that PyTorch uses, on which rounding depends; no host name."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    text = cpu_info.read_text() if cpu_info.is_file() else ''
    _, _, found = text.partition('model name')
    name = found.partition('\n')[0].strip('\t :') or platform.machine()
    return f'{name}, {torch.backends.cpu.get_cpu_capability()}'
