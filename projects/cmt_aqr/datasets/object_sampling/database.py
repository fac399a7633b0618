"""Database of objects to paste: an index mapped into memory, and shards with the content.

Layout of the folder that ``tools/create_data.py --with-database`` makes::

    database.json     format, classes, cameras, and the source of the objects
    index.npy         one row per object, see :func:`index_dtype`
    shard_00000.bin   objects of the first samples, and so on

A shard holds for each object the points, (N, 5) float32 with x, y, z relative to the bottom centre
of the box, and then one JPEG patch for each camera that sees the object, in the order of the
cameras: the part of the rectangle around its box that lies in the image. Objects of classes that
the detection task ignores are not stored.
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
# Suffix of the folder while the database is being made.
UNFINISHED = '.unfinished'
POINT_CHANNELS = 5
REMEDY = 'python tools/create_data.py {root} --version VERSION --with-database'


def index_dtype(num_cameras: int) -> np.dtype:
    """Type of the row of an object.

    ``box`` is the bottom centre, length, width, height, yaw and velocity along x and y, in the
    LiDAR frame of its sample; ``start`` and ``patch_bytes`` count bytes of the shard, 0 for a
    camera without a patch.
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
    """Content of an object."""

    points: np.ndarray
    """(N, 5) float32: x, y, z in metres in the LiDAR frame of the object's sample, intensity, and
    age in seconds"""
    patches: dict[str, np.ndarray]
    """by camera, (h, w, 3) uint8, BGR"""


class ObjectDatabase:
    """Reader of a finished database; all processes of a machine share the memory of its index.

    Args:
        folder: folder of the database.

    Attributes:
        classes: names of the labels.
        cameras: names of the columns of ``patch_bytes``.
        index: (N,) rows, see :func:`index_dtype`; read-only.

    Raises:
        FileNotFoundError: the database does not exist or is not finished.
        ValueError: the database has another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        settings = _read_settings(self.folder)
        self.classes: tuple[str, ...] = tuple(settings['classes'])
        self.cameras: tuple[str, ...] = tuple(settings['cameras'])
        self.index: np.ndarray = np.load(self.folder / INDEX_FILE, mmap_mode='r')

    def __reduce__(self) -> tuple:
        # A pickled memory map would copy all rows into each worker.
        return type(self), (self.folder,)

    def shard(self, row: np.void) -> Path:
        """Returns the file with the content of an object."""
        return self.folder / SHARD_FILE.format(row['shard'])

    def read(self, row: np.void, cameras: Collection[str] = ()) -> StoredObject:
        """Reads an object.

        Args:
            row: row of the index.
            cameras: cameras whose patches are read, where they see the object.

        Raises:
            FileNotFoundError: the shard does not exist.
            DamagedFileError: the shard ends too early, or a patch is not an image.
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
        state = 'is not finished; continue' if unfinished else 'does not exist; make it'
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
