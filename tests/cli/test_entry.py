"""How a tool ends."""

import argparse
import json

import pytest

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.usage_error import UsageError


@pytest.fixture
def end(monkeypatch, capsys):
    """Run a tool that raises an error, or returns a status; its own status and stderr."""

    def end(result: BaseException | int | None, *arguments: str) -> tuple[int, str]:
        def main(args: argparse.Namespace) -> int | None:
            if isinstance(result, BaseException):
                raise result
            return result

        parser = entry.Parser(prog='tool.py')
        parser.add_argument('--number', type=int)
        entry.add_screen_arguments(parser)
        monkeypatch.setattr('sys.argv', ['tool.py', *arguments])
        with pytest.raises(SystemExit) as status:
            entry.run(main, parser, resume='go on')
        return status.value.code, capsys.readouterr().err

    return end


def test_mistakes_end_with_status_2_and_one_line(end):
    assert end(UsageError('--x: not this one')) == (2, 'tool.py: --x: not this one\n')
    assert end(KeyboardInterrupt()) == (130, 'tool.py: interrupted; go on\n')
    assert end(3) == (3, '')


def test_a_traceback_is_shown_on_request(end):
    errors = end(UsageError('wrong'), '--traceback')[1].splitlines()
    assert errors[0] == 'Traceback (most recent call last):'
    assert errors[-1] == 'tool.py: wrong'


def test_a_bug_keeps_its_traceback(end):
    with pytest.raises(ZeroDivisionError):
        end(ZeroDivisionError('a bug'))


def test_a_wrong_command_line_is_one_line(end):
    assert end(0, '--numbr', '1') == (
        2,
        'tool.py: unknown argument --numbr; did you mean --number? (all options: --help)\n',
    )
    status, line = end(0, '--number', 'x')
    assert (status, line.count('\n')) == (2, 1)


def test_torchrun_shows_the_line(end, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / 'error.json'))
    end(UsageError('wrong'))
    message = json.loads((tmp_path / 'error.json').read_text())['message']
    assert message['extraInfo']['py_callstack'] == message['message'] == 'tool.py: wrong'
