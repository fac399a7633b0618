"""Feature maps on disk, one safetensors file per entry.

Safetensors holds half-precision tensors and a little metadata, and runs no code when it is read. A
file is written under a temporary name and then renamed, so any number of processes and machines
share a directory without a lock. Features of unused weights can be removed by deleting a folder.
"""

import ast
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import replacing

DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16, 'float32': torch.float32}


class Entry(NamedTuple):
    """Features of one sample."""

    maps: list[Tensor]
    """feature maps of one module, without the batch dimension"""
    facts: dict[str, Any]
    """what loading added to the sample except points and images, such as ``lidar2img``: arrays,
    plain values, and lists, tuples and dicts of plain values"""


class FeatureStore:
    """Entries by folder and key below one directory.

    Args:
        directory: made when the first entry is written.
        dtype: of the maps on disk: 'float16', 'bfloat16' or 'float32'.
        max_gigabytes: limit for all files below `directory`, in units of 1e9 bytes.

    Raises:
        ValueError: for another dtype, or a limit that is not positive.
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
        self.max_bytes = int(max_gigabytes * 1e9)

    def path(self, folder: str, key: str) -> Path:
        """File of an entry, whether it exists or not."""
        return self.directory / folder / key[:2] / f'{key}.safetensors'

    def check_room(self, size: int) -> None:
        """Raises a ValueError if so many more bytes would exceed the limit."""
        used = sum(map(_size, self.directory.rglob('[!.]*.safetensors')))
        if used + size > self.max_bytes:
            raise ValueError(
                f'feature cache {self.directory} needs {size / 1e9:.3f} GB in addition to '
                f'{used / 1e9:.3f} GB, but max_gigabytes is {self.max_bytes / 1e9:g}: raise it, or '
                'delete folders of weights that are no longer used'
            )

    def read(self, folder: str, key: str) -> Entry:
        """An entry, in the dtype on disk.

        Raises:
            FileNotFoundError: there is no such entry.
            ValueError: it is damaged.
        """
        path = self.path(folder, key)
        try:
            with safe_open(path, framework='pt') as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata['checksum'] != _checksum(key, tensors, metadata['facts']):
                raise ValueError('wrong checksum')
            return _unpack(tensors, metadata['facts'])
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, ValueError, SyntaxError, KeyError, TypeError) as error:
            raise ValueError(
                f'features in {path} are damaged ({error}): delete the file and fill the cache '
                'again'
            ) from error

    def write(self, folder: str, key: str, entry: Entry) -> int:
        """Writes an entry and returns its size in bytes; readers never see part of it.

        Raises:
            ValueError: a map has values outside the range of the dtype on disk, or a fact is not of
                a type that can be stored.
        """
        path = self.path(folder, key)
        tensors, facts = _pack(entry, self.dtype)
        metadata = {'facts': facts, 'checksum': _checksum(key, tensors, facts)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
        return path.stat().st_size


def _size(path: Path) -> int:
    """Size of a file in bytes; 0 if another process has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pack(entry: Entry, dtype: torch.dtype) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the other facts as a Python literal."""
    maps = {f'map/{i}': _rounded(m, dtype).contiguous().cpu() for i, m in enumerate(entry.maps)}
    arrays, plain = {}, {}
    for name, value in entry.facts.items():
        if isinstance(value, np.ndarray):
            arrays[f'fact/{name}'] = torch.from_numpy(np.ascontiguousarray(value))
        else:
            plain[name] = _without_numpy(value)
    text = repr(plain)
    try:
        readable = ast.literal_eval(text) == plain
    except (ValueError, SyntaxError):
        readable = False
    if not readable:
        raise ValueError(f'only plain values and arrays can be stored with features: {text[:500]}')
    return maps | arrays, text


def _without_numpy(value: Any) -> Any:
    """Value with Python numbers in place of NumPy scalars, whose text is not a literal."""
    if isinstance(value, dict):
        return {_without_numpy(k): _without_numpy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_without_numpy, value))
    return value.item() if isinstance(value, np.generic) else value


def _unpack(tensors: Mapping[str, Tensor], facts: str) -> Entry:
    maps = {int(name[4:]): t for name, t in tensors.items() if name.startswith('map/')}
    arrays = {n[5:]: t.numpy().copy() for n, t in tensors.items() if n.startswith('fact/')}
    return Entry([maps[i] for i in range(len(maps))], ast.literal_eval(facts) | arrays)


def _rounded(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Features in the dtype on disk; a ValueError if they overflow."""
    rounded = features.to(dtype)
    if not rounded.isfinite().all():
        largest = float(features.abs().max())
        raise ValueError(
            f'features up to {largest:g} cannot be cached as {str(dtype).removeprefix("torch.")}'
            + (": set dtype='bfloat16'" if np.isfinite(largest) else '')
        )
    return rounded


def _checksum(key: str, tensors: Mapping[str, Tensor], facts: str) -> str:
    """Checksum of an entry's key and content."""
    total = zlib.crc32(f'{key}{facts}'.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f'{name}{tuple(tensor.shape)}{tensor.dtype}'.encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), total)
    return f'{total:08x}'
