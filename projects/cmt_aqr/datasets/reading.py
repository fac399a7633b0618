"""Errors of samples whose files cannot be read: they name the sample and the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class SampleError(Exception):
    """A file of a sample is missing or damaged; one of the two below."""


class MissingFileError(SampleError, FileNotFoundError):
    """There is no such file."""


class DamagedFileError(SampleError, ValueError):
    """The file is there and is not what it should be, or the disk gives an error."""


@contextmanager
def reading(results: Mapping, path: str, what: str) -> Iterator[None]:
    """Name the sample and the file in errors of what is done inside.

    Args:
        results: the sample as a pipeline has it.
        path: file that is read.
        what: what the file holds.

    Raises:
        MissingFileError: the file does not exist.
        DamagedFileError: it could not be read, or what was read makes no sense.
    """
    start = f'sample {sample_name(results)}: {what} {path}'
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f'{start} does not exist') from error
    except (OSError, ValueError) as error:
        raise DamagedFileError(f'{start} cannot be read: {error}') from error


def sample_name(results: Mapping) -> object:
    """How messages call a sample: its token if it has one."""
    return results.get('token', results.get('sample_idx', 'without a token'))
