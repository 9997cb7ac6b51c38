"""One command for all that mmgor does.

A command of its own is a file here with ``add_arguments(parser)`` and
``run(args)``. Every other command runs the tool of that name in ``tools/``.
"""

import argparse
import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import mmgor
from mmgor.io.config_values import nearest

#: Command -> what it does; ``mmgor/cli/<command>.py``.
COMMANDS: dict[str, str] = {
    'bits': 'find bits for every layer that meet a budget',
    'convert': 'write the config of a low-bit student on top of yours',
    'doctor': 'check the environment, a config and its data',
    'report': 'write one HTML page on a training',
}
#: Command -> tool and what it does.
TOOLS = {
    'train': ('train.py', 'train a detector'),
    'test': ('test.py', 'COCO mAP of a checkpoint or an exported file'),
    'export': ('export.py', 'write a student as an integer file'),
    'verify': ('verify_export.py', 'compare an exported file with PyTorch'),
    'synthesize': ('synthesize.py', 'make images for training without data'),
    'detect': ('detect.py', 'find objects in images with an exported file'),
    'pack': ('pack.py', 'write the weights in as many bits as they have'),
    'cost': ('report.py', 'bits, bytes and operations of every layer'),
}
#: What a command raises for a user's input: shown without a traceback.
USER_ERRORS = (ImportError, OSError, RuntimeError, ValueError)
_WIDTH = max(map(len, [*COMMANDS, *TOOLS]))


class _Parser(argparse.ArgumentParser):
    """Adds options of a similar spelling to the error of an unknown one."""

    def error(self, message: str) -> NoReturn:
        head, _, unknown = message.partition('unrecognized arguments: ')
        if unknown and not head:
            known = [*self._option_string_actions]
            names = [word.partition('=')[0] for word in unknown.split()]
            message += (
                f'{nearest(names, known)}; {self.prog} --help lists all '
                'options'
            )
        super().error(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments (Sequence[str], optional): Default: those of the process.

    Raises:
        SystemExit: With 0 after ``--help`` or ``--version``, 2 for a command
            or option that does not exist, 1 if the command refuses its input.
    """
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    name = words[0] if words else '--help'
    if name in ('-h', '--help'):
        print(overview())
    elif name == '--version':
        print(f'mmgor {mmgor.__version__}')
    elif name in TOOLS:
        run_tool(name, words[1:])
    elif name in COMMANDS:
        run_command(name, words[1:])
    else:
        known = [*COMMANDS, *TOOLS]
        hint = nearest([name], known)
        print(
            f'mmgor: {name} is not a command{hint}.\n\n{overview()}',
            file=sys.stderr,
        )
        raise SystemExit(2)


def overview() -> str:
    """The commands and what they do."""
    lines = {**COMMANDS, **{name: text for name, (_, text) in TOOLS.items()}}
    commands = '\n'.join(f'  {k:{_WIDTH}}  {v}' for k, v in lines.items())
    return (
        'usage: mmgor COMMAND ...\n\n'
        f'{commands}\n\n'
        'mmgor COMMAND --help lists the options of a command.'
    )


def run_command(name: str, words: Sequence[str]) -> None:
    """Run a command of mmgor's own.

    Args:
        name (str): One of :data:`COMMANDS`.
        words (Sequence[str]): Its arguments.

    Raises:
        SystemExit: With the status that the command returns, or 1 if it
            raises one of :data:`USER_ERRORS`.
    """
    command = importlib.import_module(f'mmgor.cli.{name}')
    parser = _Parser(
        prog=f'mmgor {name}',
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(words)
    try:
        status = command.run(args)
    except USER_ERRORS as error:
        raise SystemExit(f'mmgor {name}: {error}') from error
    except KeyboardInterrupt:
        raise SystemExit(f'mmgor {name}: stopped by Ctrl-C.') from None
    if status:
        raise SystemExit(status)


def tools_folder() -> Path:
    """The folder of the tools, which the package has in every install.

    Raises:
        FileNotFoundError: If it is missing.
    """
    folder = Path(mmgor.__file__).resolve().parent / '.mim' / 'tools'
    if not (folder / 'train.py').is_file():
        raise FileNotFoundError(
            f"expected mmgor's tools in {folder}, found none; install mmgor "
            'again. In a checkout, it is a symbolic link to tools/.'
        )
    return folder


def run_tool(name: str, words: Sequence[str]) -> None:
    """Run a tool as ``python tools/...`` does.

    Args:
        name (str): One of :data:`TOOLS`.
        words (Sequence[str]): Its arguments.
    """
    folder = tools_folder()
    script = folder / TOOLS[name][0]
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(folder))
    runpy.run_path(str(script), run_name='__main__')
