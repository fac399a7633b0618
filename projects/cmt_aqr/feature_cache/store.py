"""Feature maps on disk, one file an entry.

The format is safetensors, because it holds what a cache needs and nothing else: half-precision
tensors of torch as they are, memory-mapped without a copy, beside a few words of metadata, and no
code that could run on reading. A file an entry makes the rest simple: writing is a rename, so that
any number of workers, ranks and machines share a folder without a lock; damage costs one sample;
a set of weights that is no longer needed is a folder to delete. LMDB allows one writer and wants
its size declared; zarr cuts arrays into chunks, which are never wanted in part here; one large
array on disk cannot grow with what is asked for.
"""

from __future__ import annotations

import ast
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import replacing

DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}
_GIGABYTE = 1e9
_SUFFIX = '.safetensors'


class Entry(NamedTuple):
    """What is kept of one sample and branch.

    Attributes:
        maps: one tensor for each feature map, without the sample dimension.
        facts: what loading the sample added to it beside the data: numbers, words, None, lists,
            tuples and dicts of them, and arrays.
    """

    maps: list[Tensor]
    facts: dict[str, Any]


class FeatureStore:
    """Entries by folder and key below one directory.

    Args:
        directory: made when the first entry is written.
        dtype: of the maps on disk: 'float16', 'bfloat16' or 'float32'.
        max_gigabytes: of all files below `directory`, in units of 1e9 bytes. Where it is reached
            nothing more is written, with one warning; nothing is ever removed. Ranks count for
            each other by assuming that all write alike, and look at the files before they stop.

    Raises:
        ValueError: for another dtype, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike,
        dtype: str = 'float16',
        max_gigabytes: float = 100.0,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype of the feature cache is {dtype!r}, not one of {list(DTYPES)}')
        if not max_gigabytes > 0:
            raise ValueError(f'max_gigabytes of the feature cache is {max_gigabytes!r}, not > 0')
        self.directory = Path(directory)
        self.dtype = DTYPES[dtype]
        self.max_bytes = int(max_gigabytes * _GIGABYTE)
        self._used: int | None = None
        self._closed = False

    def size(self, folder: str = '') -> int:
        """Bytes of all files below a folder of the directory."""
        return sum(_size(path) for path in (self.directory / folder).rglob('*'))

    def count(self, folder: str) -> int:
        """Entries of a folder."""
        return sum(1 for _ in (self.directory / folder).rglob(f'[0-9a-f]*{_SUFFIX}'))

    def path(self, folder: str, key: str) -> Path:
        """Where an entry lies, if there is one."""
        return self.directory / folder / key[:2] / f'{key}{_SUFFIX}'

    def read(self, folder: str, key: str, *, verify: bool = True) -> Entry | None:
        """An entry, memory-mapped in the precision on disk; None where there is none.

        Args:
            folder: of the entry.
            key: of the entry, in hexadecimal digits.
            verify: read all of it to hold it against its checksum. A damaged entry is as none,
                with a warning; it is written again when the sample has been computed.
        """
        path = self.path(folder, key)
        try:
            metadata, tensors = _read_whole(path)
            if verify and metadata.get('checksum') != _checksum(key, tensors, metadata['facts']):
                raise ValueError('its checksum does not fit')
            return _unpack(tensors, metadata['facts'])
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, SyntaxError, KeyError) as error:
            message = f'feature cache: {path} is damaged and will be made anew ({error})'
            print_log(message, logger='current', level=logging.WARNING)
            return None

    def write(self, folder: str, key: str, entry: Entry) -> bool:
        """Keep an entry, in place of an earlier one; whether there was room for it.

        Whoever reads meanwhile gets the earlier entry or the new one, as a whole.

        Raises:
            ValueError: a map has values that the precision on disk does not hold, or a fact is of
                a kind that cannot be kept.
        """
        if self._closed:
            return False
        tensors, facts = _pack(entry, self.dtype)
        size = sum(tensor.nbytes for tensor in tensors.values()) + len(facts)
        if not self._has_room(size):
            return False
        path = self.path(folder, key)
        metadata = {'facts': facts, 'checksum': _checksum(key, tensors, facts)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(tensors, temporary, metadata)
        except (OSError, SafetensorError) as error:
            self._close(f'cannot be written to ({error})')
            return False
        self._used += size * get_world_size()
        return True

    def _has_room(self, size: int) -> bool:
        if self._used is None or self._used + size > self.max_bytes:
            self._used = self.size()
        if self._used + size > self.max_bytes:
            self._close(
                f'is full: {self._used / _GIGABYTE:.2f} of max_gigabytes='
                f'{self.max_bytes / _GIGABYTE:g}; raise that, or delete folders of weights that '
                'are no longer used'
            )
            return False
        return True

    def _close(self, reason: str) -> None:
        self._closed = True
        message = f'feature cache {self.directory} {reason}; what is not in it is computed anew'
        print_log(message, logger='current', level=logging.WARNING)


def _read_whole(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of one file.

    safetensors opens a file twice, for its header and for its data: where another process has put
    a new file in its place meanwhile, the two do not belong together, and both are read again.
    """
    while True:
        before = _identity(path)
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _identity(path) == before:
            return metadata, tensors


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _pack(entry: Entry, dtype: torch.dtype) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and a text of the facts that are no arrays."""
    tensors = {f'map/{i}': kept(m, dtype).contiguous().cpu() for i, m in enumerate(entry.maps)}
    plain = {}
    for name, value in entry.facts.items():
        if isinstance(value, np.ndarray):
            tensors[f'fact/{name}'] = torch.from_numpy(np.ascontiguousarray(value))
        else:
            plain[name] = _without_numpy(value)
    text = repr(plain)
    try:
        readable = ast.literal_eval(text) == plain
    except (ValueError, SyntaxError):
        readable = False
    if not readable:
        raise ValueError(f'cannot keep with features what is no plain value or array: {text[:500]}')
    return tensors, text


def _without_numpy(value: Any) -> Any:
    """Numbers of numpy, which print as calls, as Python's own."""
    if isinstance(value, dict):
        return {_without_numpy(k): _without_numpy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_numpy, value))
    return value.item() if isinstance(value, np.generic) else value


def _unpack(tensors: Mapping[str, Tensor], facts: str) -> Entry:
    maps = {int(name[4:]): t for name, t in tensors.items() if name.startswith('map/')}
    arrays = {n[5:]: t.numpy().copy() for n, t in tensors.items() if n.startswith('fact/')}
    return Entry([maps[i] for i in range(len(maps))], ast.literal_eval(facts) | arrays)


def kept(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Features in the precision on disk.

    Raises:
        ValueError: they have values that it does not hold.
    """
    rounded = features.to(dtype)
    if not rounded.isfinite().all():
        largest = float(features.abs().max())
        raise ValueError(
            f'features up to {largest:g} cannot be cached as {str(dtype).removeprefix("torch.")}'
            + (": set dtype='bfloat16'" if np.isfinite(largest) else '')
        )
    return rounded


def _checksum(key: str, tensors: Mapping[str, Tensor], facts: str) -> str:
    """Of everything that an entry holds, and of whose it is."""
    total = zlib.crc32(f'{key}{facts}'.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f'{name}{tuple(tensor.shape)}{tensor.dtype}'.encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), total)
    return f'{total:08x}'


def _size(path: Path) -> int:
    """Bytes of a file; none of a folder, or of a file that another process has just renamed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
