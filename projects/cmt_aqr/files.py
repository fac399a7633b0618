"""Atomic writes of result files by rename.

A reader finds either the old or the new content, and a killed run or a full disk leaves the
previous file intact.
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
    """Path of a temporary file that replaces ``path`` when the block succeeds.

    It is in the same folder and has the same suffix, for writers that choose a format by it. If the
    block raises, the temporary file is removed and ``path`` is unchanged. If several processes
    write the same path, the last one to finish wins.
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
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def dump_json(path: str | os.PathLike, data: Any, *, indent: int = 2) -> None:
    """Write plain data atomically as JSON with a trailing newline."""
    write_text(path, json.dumps(data, indent=indent) + '\n')
