"""The start of every tool: a mistake ends it with one line and status 2, without a traceback.

The line is the last one on stderr and in the log of the run; ``--traceback`` puts the traceback
before it. An error that :mod:`.explain` does not recognise is a bug and keeps its traceback.
"""

import argparse
import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import torch

from ..files import dump_json
from ..usage_error import UsageError, did_you_mean
from .explain import explain
from .screen import quiet, write_to_log

_PICTURES = ('.png', '.jpg', '.jpeg', '.pdf', '.svg')
INTERRUPTED = 130  # as shells report SIGINT


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line with the most similar option, without the usage."""

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """Parse the command line; see :meth:`argparse.ArgumentParser.parse_args`."""
        args, unknown = self.parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].split('=')[0], self._all_options())
            self.error(f'unknown argument {unknown[0]}{hint}')
        return args

    def error(self, message: str) -> NoReturn:
        """End the command with status 2 and one line."""
        self.exit(2, f'{self.prog}: {message} (all options: --help)\n')

    def _all_options(self) -> list[str]:
        """Options of this parser and of its subcommands."""
        options = []
        for action in self._actions:
            options += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    options += command._all_options()
        return options


def add_screen_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--verbose`` and ``--traceback``; a parser with subcommands needs them in each."""
    parser.add_argument(
        '--verbose', action='store_true', help='show all that the log file has, and all warnings'
    )
    parser.add_argument(
        '--traceback', action='store_true', help='show where in the code a mistake was noticed'
    )


def number(
    kind: type[int] | type[float], least: float, most: float = float('inf')
) -> Callable[[str], float]:
    """Type of an option that takes a number of a range, for ``add_argument(type=...)``."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            bound = f'{least:g} or more' if most == float('inf') else f'{least:g} to {most:.12g}'
            raise argparse.ArgumentTypeError(f'{text} must be {bound}')
        return value

    parse.__name__ = kind.__name__  # which argparse names if the text is no number
    return parse


def device(text: str) -> torch.device:
    """Type of an option that takes a device of this machine, for ``add_argument(type=...)``."""
    try:
        found = torch.device(text)
        torch.empty(1, device=found).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(
            f'{text} is no device of this machine ({str(error).splitlines()[0]}); it has cpu and '
            f'{torch.cuda.device_count()} of cuda:N'
        ) from None
    return found


def picture(text: str) -> Path:
    """Path of an image file, as a ``type`` of ``add_argument``."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES or path.is_dir():
        raise argparse.ArgumentTypeError(
            f'{text} is no name of an image file; its end must be one of {", ".join(_PICTURES)}'
        )
    return path


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    *,
    resume: str = 'the same command starts again',
    shows_info: bool = False,
) -> None:
    """Parse the command line, run a tool and exit with its status.

    Args:
        main: the tool; returns its exit status, or None.
        parser: parser of its arguments, with :func:`add_screen_arguments`.
        resume: way to go on after Ctrl-C.
        shows_info: see :func:`.screen.quiet`.
    """
    args = parser.parse_args()
    on_screen = contextlib.nullcontext() if args.verbose else quiet(shows_info=shows_info)
    with exit_on_usage_error(parser, show_traceback=args.traceback, resume=resume), on_screen:
        status = main(args)
    if status is not None:
        sys.exit(status)


@contextlib.contextmanager
def exit_on_usage_error(
    parser: argparse.ArgumentParser,
    *,
    show_traceback: bool = False,
    resume: str = 'the same command starts again',
) -> Iterator[None]:
    """End the process with one line if the block ends by a mistake of the user; see :func:`run`."""
    try:
        yield
    except KeyboardInterrupt:
        finish(INTERRUPTED, f'{parser.prog}: interrupted; {resume}')
    except Exception as error:
        message = explain(error)
        if message is None:
            _write_to_log(f'{type(error).__name__}: {error}')
            raise
        if show_traceback:
            traceback.print_exc()
        finish(2, f'{parser.prog}: {message}')


@contextlib.contextmanager
def as_usage_error(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds, whose messages are written for the user, into ``UsageError``."""
    try:
        yield
    except kinds as error:
        named = isinstance(error, OSError) and error.filename and error.strerror
        text = f'{error.filename}: {error.strerror}' if named else str(error)
        raise UsageError(text) from error


def finish(status: int, line: str) -> NoReturn:
    """Write the line to the log of the run and as the last one to stderr, and exit."""
    _write_to_log(line)
    _tell_launcher(line)
    print(line, file=sys.stderr, flush=True)
    sys.exit(status)


def _write_to_log(line: str) -> None:
    """Append a line to the log files of the Runners of this process, if there are any."""
    write_to_log(logging.LogRecord('mmengine', logging.ERROR, __file__, 0, line, (), None))


def _tell_launcher(line: str) -> None:
    """Let torchrun show the line in the report that it prints last, in place of a traceback."""
    file = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if file:
        facts = dict(py_callstack=line, timestamp=str(int(time.time())))
        dump_json(file, dict(message=dict(message=line, extraInfo=facts)))
