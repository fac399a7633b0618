"""What a command shows on the screen; everything else goes into the log file of its run.

Shown are prints and warnings of this project and of the user's own modules, and errors. Libraries
print, warn and log at length: their texts go into the log file, if the command has one. With
``--verbose`` nothing is held back.
"""

import contextlib
import io
import logging
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

_PACKAGE = __name__.rpartition('.cli.')[0]
_STANDARD_LIBRARY = Path(sysconfig.get_paths()['stdlib'])
# Modules that pass a message on: the one that called them wrote it.
_MESSENGERS = ('logging', 'warnings', 'mmengine.logging', __name__)
# Standard output, while the texts of libraries are kept off it.
_screen: TextIO | None = None


def is_quiet() -> bool:
    """Whether this process keeps the texts of libraries off the screen."""
    return _screen is not None


@contextlib.contextmanager
def quiet(*, shows_info: bool = False) -> Iterator[None]:
    """Keep the texts of libraries off the screen within the block.

    Args:
        shows_info: whether to show log messages of this project below the level of a warning, for
            commands without a log file.
    """
    global _screen
    screen = sys.stdout
    with contextlib.ExitStack() as changes:
        changes.enter_context(contextlib.redirect_stdout(_Prints(screen)))
        changes.enter_context(_replaced(warnings, 'showwarning', _show_warning))
        handlers = _handlers_of_libraries(logging.Logger.callHandlers)
        changes.enter_context(_replaced(logging.Logger, 'callHandlers', handlers))
        if 'mmengine.logging' in sys.modules:
            handlers = _handlers_of_runs(logging.INFO if shows_info else logging.WARNING)
            logger = sys.modules['mmengine.logging'].MMLogger
            changes.enter_context(_replaced(logger, 'callHandlers', handlers))
            if not screen.isatty():
                bar = sys.modules['mmengine.utils'].ProgressBar
                changes.enter_context(_replaced(bar, '__init__', _without_output(bar.__init__)))
        _screen = screen
        try:
            yield
        finally:
            _screen = None
            _close_bars()


def show(text: str, file: TextIO | None = None) -> None:
    """Print a line above the progress bars; to standard output by default."""
    file = file or _screen or sys.stdout
    if 'tqdm' in sys.modules:
        sys.modules['tqdm'].tqdm.write(text, file=file)
    else:
        print(text, file=file)


def _close_bars() -> None:
    """Remove the bars that an error has left, before its line is shown."""
    if 'tqdm' in sys.modules:
        for bar in [*getattr(sys.modules['tqdm'].tqdm, '_instances', ())]:
            bar.close()


def write_to_log(record: logging.LogRecord) -> None:
    """Write a record to the log file of every Runner in this process."""
    if 'mmengine.logging' not in sys.modules:
        return
    for logger in sys.modules['mmengine.logging'].MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and record.levelno >= handler.level:
                handler.handle(record)  # a full disk does not raise here


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class _Prints:
    """Standard output that shows what this project and the user's modules print."""

    def __init__(self, screen: TextIO) -> None:
        self.screen = screen

    def __getattr__(self, name: str):
        return getattr(self.screen, name)

    def write(self, text: str) -> int:
        """Write to the screen, or to the log if the caller is a library."""
        if not _by_library(sys._getframe(1)):
            return self.screen.write(text)
        if text.strip():
            write_to_log(_record(logging.INFO, text.strip()))
        return len(text)


def _without_output(initialise: Callable) -> Callable:
    """Replaces ``__init__`` of mmengine's bars, which draw themselves also without a terminal."""

    def init(bar: Any, *args, **kwargs) -> None:
        initialise(bar, *args, **{**kwargs, 'file': io.StringIO()})

    return init


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Replaces :func:`warnings.showwarning`."""
    if _is_library(filename):
        text = f'{filename}:{lineno}: {category.__name__}: {message}'
        write_to_log(_record(logging.WARNING, text))
    else:
        show(f'WARNING: {message}', sys.stderr)


def _handlers_of_libraries(call_handlers: Callable) -> Callable:
    """Replaces ``callHandlers`` of loggers that libraries have for themselves."""

    def call(logger: logging.Logger, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR and _by_library(sys._getframe(1)):
            write_to_log(record)
        else:
            call_handlers(logger, record)

    return call


def _handlers_of_runs(least: int) -> Callable:
    """Replaces ``callHandlers`` of mmengine's loggers: files get all, the screen a few.

    Args:
        least: lowest level of shown messages that no library wrote.
    """

    def call(logger: logging.Logger, record: logging.LogRecord) -> None:
        shown = logging.ERROR if _by_library(sys._getframe(1)) else least
        for handler in logger.handlers:
            in_file = isinstance(handler, logging.FileHandler)
            if record.levelno < max(handler.level, 0 if in_file else shown):
                continue
            if in_file:
                handler.handle(record)
            elif handler.filter(record):
                level = '' if record.levelno == logging.INFO else f'{record.levelname}: '
                show(f'{level}{record.getMessage()}')

    return call


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord('mmengine', level, __file__, 0, text, (), None)


def _by_library(frame: FrameType | None) -> bool:
    """Whether a library wrote the message that this frame passes on."""
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if not any(name == other or name.startswith(f'{other}.') for other in _MESSENGERS):
            own = name.startswith(f'{_PACKAGE}.')
            return not own and _is_library(frame.f_code.co_filename)
        frame = frame.f_back
    return True


def _is_library(filename: str) -> bool:
    path = Path(filename)
    installed = {'site-packages', 'dist-packages'} & {*path.parts}
    return bool(installed) or _STANDARD_LIBRARY in path.parents
