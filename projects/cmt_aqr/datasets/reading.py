"""Errors of samples whose files cannot be read, which name the sample and the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..samples import sample_name


class SampleError(Exception):
    """Base class: a file of a sample is missing or damaged."""


class MissingFileError(SampleError, FileNotFoundError):
    """The file does not exist."""


class DamagedFileError(SampleError, ValueError):
    """The file exists but is not what it should be, or the disk returns an error."""


@contextmanager
def reading(results: Mapping, path: str, what: str) -> Iterator[None]:
    """Adds the names of the sample and of the file to errors raised in the block.

    Args:
        results: the sample.
        path: the file.
        what: the content of the file, such as 'cloud'.

    Raises:
        MissingFileError: the file does not exist.
        DamagedFileError: the file could not be read or decoded.
    """
    start = f'sample {sample_name(results)}: {what} {path}'
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f'{start} does not exist') from error
    except (OSError, ValueError) as error:
        raise DamagedFileError(f'{start} cannot be read: {error}') from error
