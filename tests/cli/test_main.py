"""The command mmgor: which commands it has and how it refuses others."""

import sys
from types import ModuleType

import pytest

import mmgor
from mmgor.cli import main as cli


@pytest.fixture
def command(monkeypatch):
    """A command of the test's own."""
    module = ModuleType('mmgor.cli.greet', 'Greet somebody.')
    module.add_arguments = lambda parser: parser.add_argument('--name')
    module.run = lambda args: print(f'hello {args.name}')
    monkeypatch.setitem(sys.modules, 'mmgor.cli.greet', module)
    monkeypatch.setitem(cli.COMMANDS, 'greet', 'greet somebody')
    return module


def refused(words):
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    return error.value.code


@pytest.mark.parametrize('words', [[], ['--help'], ['-h']])
def test_without_a_command_it_lists_all(words, capsys):
    cli.main(words)
    shown = capsys.readouterr().out
    assert all(f'\n  {name} ' in shown for name in [*cli.COMMANDS, *cli.TOOLS])


def test_it_says_its_version(capsys):
    cli.main(['--version'])
    assert capsys.readouterr().out == f'mmgor {mmgor.__version__}\n'


def test_an_unknown_command_gets_the_nearest(capsys):
    assert refused(['trian']) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


def test_a_command_gets_its_arguments(command, capsys):
    cli.main(['greet', '--name', 'world'])
    assert capsys.readouterr().out == 'hello world\n'


def test_an_unknown_option_gets_the_nearest(command, capsys):
    assert refused(['greet', '--nmae', 'x']) == 2
    shown = capsys.readouterr().err
    assert "did you mean '--name'" in shown
    assert 'mmgor greet --help lists all options' in shown


def test_what_a_command_refuses_is_one_line(command):
    def run(args):
        raise ValueError('expected a name, got None.')

    command.run = run
    assert refused(['greet']) == 'mmgor greet: expected a name, got None.'


def test_a_fault_of_a_command_keeps_its_traceback(command):
    def run(args):
        raise KeyError('a fault')

    command.run = run
    with pytest.raises(KeyError, match='a fault'):
        cli.main(['greet'])


def test_the_status_of_a_command_is_that_of_the_process(command):
    command.run = lambda args: 3
    assert refused(['greet']) == 3


def test_a_tool_gets_its_arguments(tmp_path, monkeypatch, capsys):
    (tmp_path / 'train.py').write_text('import sys\nprint(sys.argv[1:])')
    monkeypatch.setattr(cli, 'tools_folder', lambda: tmp_path)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    cli.main(['train', 'config.py', '--amp'])
    assert capsys.readouterr().out == "['config.py', '--amp']\n"


@pytest.mark.parametrize('name', cli.TOOLS)
def test_every_tool_exists(name):
    assert (cli.tools_folder() / cli.TOOLS[name][0]).is_file()
