"""A camera of round numbers, and a database of three grey objects."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.fileio import dump

# Looks along y from the origin: x to the right, z up, 100 pixels at a distance of one.
LIDAR2IMG = np.array(
    [[100.0, 100.0, 0, 0], [0, 50.0, -100.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
SHAPE = (100, 200)
CAMERA = 'CAM_FRONT'
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


@pytest.fixture
def database(tmp_path) -> Path:
    """Data root of objects with five points each; the bus has no patch."""
    folder = tmp_path / 'nuscenes_gt_database'
    folder.mkdir()
    entries = {}
    for number, (name, x, y, grey) in enumerate(OBJECTS):
        path = f'{folder.name}/0_{name}_{number}.bin'
        points = np.full((5, 5), number, dtype=np.float32)
        points[:, :3] = [0, -SIDE / 2, SIDE / 2]  # in the middle of the side that faces the camera
        points.tofile(tmp_path / path)
        patches = () if name == 'bus' else (CAMERA,)
        for camera in patches:
            patch = np.full((7, 5, 3), grey, dtype=np.uint8)
            cv2.imwrite(str(tmp_path / path.replace('.bin', f'_{camera}.jpg')), patch)
        entry = dict(name=name, path=path, box3d_lidar=cube(x, y), num_points_in_gt=5)
        entries.setdefault(name, []).append(dict(entry, image_idx=0, patches=patches))
    dump(entries, tmp_path / 'nuscenes_dbinfos_train.pkl')
    return tmp_path


@pytest.fixture
def sampler_config(database) -> Callable:
    """Arguments of a sampler of that database."""

    def sampler_config(**changes) -> dict:
        return dict(
            info_path=str(database / 'nuscenes_dbinfos_train.pkl'),
            data_root=str(database),
            classes=['bus', 'car'],
            sample_groups=dict(car=8, bus=8),
            points_loader=dict(
                type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=5
            ),
            **changes,
        )

    return sampler_config
