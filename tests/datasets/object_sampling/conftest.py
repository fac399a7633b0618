"""A camera of round numbers, and a database of three grey objects."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from projects.cmt_aqr.datasets.object_sampling.database import (
    FORMAT,
    INDEX_FILE,
    SETTINGS_FILE,
    SHARD_FILE,
    index_dtype,
)

# Looks along y from the origin: x to the right, z up, 100 pixels at a distance of one.
LIDAR2IMG = np.array(
    [[100.0, 100.0, 0, 0], [0, 50.0, -100.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
SHAPE = (100, 200)
CAMERA = 'CAM_FRONT'
# In another order than the samplers have them.
CLASSES = ['car', 'bus']
SIDE = 2.0
# Name, and x and y of the middle; one behind the other, and one by itself.
OBJECTS = (('car', 0.0, 10.0, 200), ('car', 0.0, 20.0, 100), ('bus', 8.0, 20.0, 150))


def cube(x: float, y: float) -> np.ndarray:
    """(9,) box with its middle at z = 0."""
    return np.array([x, y, -SIDE / 2, SIDE, SIDE, SIDE, 0, 0, 0], dtype=np.float32)


@pytest.fixture
def lidar2img() -> np.ndarray:
    """(4, 4) of the camera."""
    return LIDAR2IMG.copy()


@pytest.fixture
def corners() -> Callable:
    """(N, 8, 3) of cubes two metres wide with their middle at (x, y, 0)."""

    def corners(*places: tuple[float, float]) -> np.ndarray:
        unit = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T * SIDE / 2
        return np.array([unit + np.array([x, y, 0]) for x, y in places]).reshape(-1, 8, 3)

    return corners


def stored(name: str, box: np.ndarray, number: int, grey: int | None) -> dict:
    """An object with five points, the middle of the side that faces the camera, and one patch."""
    points = np.full((5, 5), number, dtype=np.float32)
    points[:, :3] = [0, -SIDE / 2, SIDE / 2]
    patch = b''
    if grey is not None:
        patch = cv2.imencode('.jpg', np.full((7, 5, 3), grey, dtype=np.uint8))[1].tobytes()
    return dict(name=name, box=box, points=points, patch=patch)


def write_database(folder: Path, objects: Sequence[dict]) -> Path:
    """The database of objects as :func:`stored` gives them, all of one shard."""
    folder.mkdir(exist_ok=True)
    rows, content, start = [], [], 0
    for sample, item in enumerate(objects):
        label, sizes = CLASSES.index(item['name']), [len(item['patch'])]
        rows.append((label, sample, len(item['points']), item['box'], 0, start, sizes))
        content += [item['points'].tobytes(), item['patch']]
        start += item['points'].nbytes + len(item['patch'])
    (folder / SHARD_FILE.format(0)).write_bytes(b''.join(content))
    np.save(folder / INDEX_FILE, np.array(rows, dtype=index_dtype(1)))
    settings = dict(format=FORMAT, classes=CLASSES, cameras=[CAMERA])
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    return folder


@pytest.fixture
def objects() -> list[dict]:
    """Three objects with five points each; the bus has no patch."""
    return [
        stored(name, cube(x, y), number, None if name == 'bus' else grey)
        for number, (name, x, y, grey) in enumerate(OBJECTS)
    ]


@pytest.fixture
def database(tmp_path, objects) -> Path:
    """The database of them."""
    return write_database(tmp_path / 'nuscenes_objects', objects)


@pytest.fixture
def rewrite(database) -> Callable:
    """Puts other objects into the database."""
    return partial(write_database, database)


@pytest.fixture
def sampler_config(database) -> Callable:
    """Arguments of a sampler of that database."""

    def sampler_config(**changes) -> dict:
        return dict(
            database=str(database),
            classes=['bus', 'car'],
            sample_groups=dict(car=8, bus=8),
            **changes,
        )

    return sampler_config
