"""The database of objects to paste: an index, mapped into memory, and shards with their content.

Layout of the folder that ``tools/create_data.py --with-database`` makes::

    database.json     format, classes, cameras, and what the objects were collected from
    index.npy         one row per object, see :func:`index_dtype`
    shard_00000.bin   the objects of the first samples, and so on

A shard holds, object by object, the points, (N, 5) float32 with x, y, z from the middle of the
box's bottom, and then one JPEG patch for each camera that sees the object, in the cameras' order:
the rectangle around its box, as far as it lies in the image. Objects of classes that the detection
task ignores are not stored.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np

from ..reading import DamagedFileError

FORMAT = 1
SETTINGS_FILE, INDEX_FILE, SHARD_FILE = 'database.json', 'index.npy', 'shard_{:05d}.bin'
# While it is being made, the folder has this at the end of its name.
UNFINISHED = '.unfinished'
POINT_CHANNELS = 5
REMEDY = 'python tools/create_data.py {root} --version VERSION --with-database'


def index_dtype(num_cameras: int) -> np.dtype:
    """The row of an object.

    ``box`` is x, y, z of the bottom's middle, length, width, height, yaw and velocity along x and
    y, in the LiDAR frame of its sample; ``start`` and ``patch_bytes`` count bytes of the shard, and
    a camera without a patch has 0.
    """
    return np.dtype(
        [
            ('label', np.int8),
            ('sample', np.int32),
            ('num_points', np.int32),
            ('box', np.float32, (9,)),
            ('shard', np.int32),
            ('start', np.int64),
            ('patch_bytes', np.int32, (num_cameras,)),
        ]
    )


class StoredObject(NamedTuple):
    """The content of an object."""

    points: np.ndarray
    """(N, 5) float32: x, y, z in metres, where the object stood in the LiDAR frame of its sample,
    intensity, and age in seconds"""
    patches: dict[str, np.ndarray]
    """(h, w, 3) uint8, BGR, by camera"""


class ObjectDatabase:
    """A finished database, to read from; all processes of a machine share the memory of its index.

    Args:
        folder: the database's.

    Attributes:
        classes: names of the labels.
        cameras: names of the columns of ``patch_bytes``.
        index: (N,) rows, see :func:`index_dtype`; read-only.

    Raises:
        FileNotFoundError: there is none, or it is not finished.
        ValueError: it has another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        settings = _read_settings(self.folder)
        self.classes: tuple[str, ...] = tuple(settings['classes'])
        self.cameras: tuple[str, ...] = tuple(settings['cameras'])
        self.index: np.ndarray = np.load(self.folder / INDEX_FILE, mmap_mode='r')

    def __reduce__(self) -> tuple:
        # A pickled memory map would hold all rows, once more in each worker.
        return type(self), (self.folder,)

    def shard(self, row: np.void) -> Path:
        """The file with the content of an object."""
        return self.folder / SHARD_FILE.format(row['shard'])

    def read(self, row: np.void, cameras: Collection[str] = ()) -> StoredObject:
        """The content of an object.

        Args:
            row: of the index.
            cameras: whose patches are wanted; those that do not see the object have none.

        Raises:
            FileNotFoundError: its shard does not exist.
            DamagedFileError: its shard ends too early, or a patch is not an image.
        """
        points_bytes = int(row['num_points']) * POINT_CHANNELS * np.dtype(np.float32).itemsize
        ends = np.cumsum([points_bytes, *row['patch_bytes']])
        with self.shard(row).open('rb') as file:
            file.seek(row['start'])
            content = file.read(ends[-1])
        if len(content) < ends[-1]:
            raise DamagedFileError('it ends too early')
        points = np.frombuffer(content, np.float32, points_bytes // 4).reshape(-1, POINT_CHANNELS)
        points = points.copy()
        points[:, :3] += row['box'][:3]
        patches = {
            camera: _decode(content[start:end])
            for camera, start, end in zip(self.cameras, ends[:-1], ends[1:], strict=True)
            if end > start and camera in cameras
        }
        return StoredObject(points, patches)


def _decode(content: bytes) -> np.ndarray:
    patch = mmcv.imfrombytes(content)
    if patch is None:
        raise DamagedFileError('a patch is not an image')
    return patch


def _read_settings(folder: Path) -> dict:
    remedy = REMEDY.format(root=folder.parent)
    if not folder.exists():
        unfinished = folder.with_name(folder.name + UNFINISHED).exists()
        state = 'is not finished; go on' if unfinished else 'does not exist; make it'
        raise FileNotFoundError(
            f'{folder}, the database of objects to paste, {state} (in {Path.cwd()}): {remedy}'
        )
    file = folder / SETTINGS_FILE
    settings = json.loads(file.read_text()) if file.is_file() else {}
    if settings.get('format') != FORMAT:
        raise ValueError(
            f'{folder} is not a database of objects of format {FORMAT}. In older ones, and in '
            "MMDetection3D's, objects of ignored classes are named barrier, so make it anew: "
            f'{remedy}'
        )
    return settings
