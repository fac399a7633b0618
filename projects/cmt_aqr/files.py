"""Writing result files by rename: a reader finds the old content or the new, never part of either.

A run that is killed, or a disk that is full, leaves the previous file whole.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Path of a temporary file that takes the place of ``path`` when the block succeeds.

    It lies in the same folder and ends in the same name, so that writers which choose a format by
    the suffix work on it. If the block raises, the temporary file is removed and ``path`` stays as
    it was. Processes may write the same path at once: the last one to finish wins.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f'.{uuid.uuid4().hex}.{target.name}')
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file, see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def dump_json(path: str | os.PathLike, data: Any, *, indent: int = 2) -> None:
    """Write plain data as JSON with a newline at its end, see :func:`replacing`."""
    write_text(path, json.dumps(data, indent=indent) + '\n')
