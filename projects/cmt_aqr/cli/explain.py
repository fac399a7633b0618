"""Translation of exceptions that a user can cause into one line; imports without MMEngine."""

import dis
import errno
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import torch

from ..usage_error import UsageError, did_you_mean
from .signatures import options_of, unknown_class, unknown_option

_PACKAGE = Path(__file__).resolve().parents[1]
_RAISE = dis.opmap['RAISE_VARARGS']
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
# What torch.save raises in place of an OSError.
_TORCH_WRITER = re.compile(r'PytorchStreamWriter failed|iostream error|unexpected pos')
_UNEXPECTED_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")
_WORKER = re.compile(r'^Caught \w+ in DataLoader worker process')
_LAST_PLACE = re.compile(r'File "([^"]+)", line \d+, in .+\n\s+(.*)')


def explain(error: Exception) -> str | None:
    """Message on a mistake in one line; None for an error that is none, but a bug."""
    for explanation in _EXPLANATIONS:
        message = explanation(error)
        if message is not None:
            return ' '.join(message.split())
    return None


def _usage_error(error: Exception) -> str | None:
    return str(error) if isinstance(error, UsageError) else None


def _operating_system(error: Exception) -> str | None:
    """A full disk, and a file that cannot be written or read."""
    full = isinstance(error, OSError) and error.errno in _DISK_FULL
    if full or (isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error))):
        where = getattr(error, 'filename', None) or '.'
        free = shutil.disk_usage(where if Path(where).exists() else '.').free / 1e9
        return (
            f'the disk is full ({free:.1f} GB free at {where}): free some space; a training goes '
            'on with --resume from its last complete checkpoint'
        )
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED:
        return f'{error.filename}: {error.strerror}; change its permissions, or use another place'
    if isinstance(error, OSError) and error.errno in _WRONG_PLACE and error.filename:
        place = error.filename2 or error.filename  # the second is where a file was to be moved
        return f'{place}: {error.strerror}; a file and a folder cannot have one name'
    return None


def _memory(error: Exception) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f'{str(error).splitlines()[0]} Lower train_dataloader.batch_size (and raise '
            'optim_wrapper.accumulative_counts), or use --amp'
        )
    return None


def _building(error: Exception) -> str | None:
    """An error of building an object from a config, with the names of the classes around it."""
    built = [
        frame.f_locals
        for frame, _ in _frames(error.__traceback__)
        if frame.f_code.co_name == 'build_from_cfg'
        and frame.f_globals['__name__'].startswith('mmengine.registry')
    ]
    if not built:
        return None
    inner = built[-1]
    name = inner.get('obj_type') or (inner['cfg'] or {}).get('type', 'config')
    name = getattr(name, '__name__', name)
    keyword = _UNEXPECTED_KEYWORD.search(str(error))
    if isinstance(error, KeyError) and inner.get('obj_cls', error) is None:
        message = unknown_class(name, inner['registry'])
    elif isinstance(error, TypeError) and keyword and 'obj_cls' in inner:
        message = unknown_option(name, keyword[1], options_of(inner['obj_cls']))
    else:
        message = f'{name}: {_text(error)}'
    around = [str(outer.get('obj_type')) for outer in built[:-1]]
    return f'{message} (in {" > ".join(around)} of the config)' if around else message


def _raised_here(error: Exception) -> str | None:
    """An error that a ``raise`` of this package raised: its message is meant for the user."""
    *_, (frame, instruction) = _frames(error.__traceback__)
    code = frame.f_code
    on_purpose = code.co_code[instruction] == _RAISE and _PACKAGE in Path(code.co_filename).parents
    return _text(error) if on_purpose else None


def _data_worker(error: Exception) -> str | None:
    """The same in a worker process of a data loader, which sends its traceback as a text."""
    if not _WORKER.match(str(error)):
        return None
    file, code = _LAST_PLACE.findall(str(error))[-1]
    if not (code.startswith('raise') and _PACKAGE in Path(file).parents):
        return None
    return str(error).rpartition(f'{code}\n')[2].partition(': ')[2]


def _save_best(error: Exception) -> str | None:
    """A score by which checkpoints are to be chosen, and which the run does not have."""
    for frame, _ in _frames(error.__traceback__):
        if isinstance(error, KeyError) and frame.f_code.co_name == '_save_best_checkpoint':
            scores = frame.f_locals['metrics']
            hint = did_you_mean(error.args[0], scores) or f'; there are {", ".join(scores)}'
            return f'default_hooks.checkpoint.save_best: no score {error.args[0]}{hint}'
    return None


_EXPLANATIONS: tuple[Callable[[Exception], str | None], ...] = (
    _usage_error,
    _operating_system,
    _memory,
    _building,
    _data_worker,
    _raised_here,
    _save_best,
)


def _text(error: Exception) -> str:
    """Message of an error; the type as well where the message is a bare name."""
    if isinstance(error, KeyError | AssertionError | AttributeError) or not str(error):
        return f'{type(error).__name__}: {error}'
    return str(error)


def _frames(trace: TracebackType | None) -> Iterator[tuple]:
    """Frames of a traceback from the outermost on, with the offset of the last instruction."""
    while trace is not None:
        yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next
