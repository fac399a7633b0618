"""A made-up data set that is not nuScenes, as the files that docs/own_data.md starts from.

Five cameras of two resolutions, a LiDAR with 64 beams, four columns and x forward, three classes.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from projects.cmt_aqr.data_preparation.synthetic.cameras import (
    Camera,
    PixelCounts,
    View,
    develop,
    ground_texture,
)
from projects.cmt_aqr.data_preparation.synthetic.lidar import Lidar
from projects.cmt_aqr.data_preparation.synthetic.rig import LIDAR, _camera
from projects.cmt_aqr.data_preparation.synthetic.world import sample_scene

SPLITS = dict(train=['north', 'east'], val=['south'])
FRAMES = 2
NAMES = dict(car='van', pedestrian='worker', traffic_cone='crate')
# Position, heading and focal length, then width and height.
CAMERAS = {
    'bow': ((1.7, 0.0, 1.6), 0, 0.8, 160, 100),
    'port': ((1.0, 0.5, 1.6), 70, 0.6, 160, 100),
    'starboard': ((1.0, -0.5, 1.6), -70, 0.6, 160, 100),
    'stern': ((0.0, 0.0, 1.6), 180, 0.6, 80, 50),
    'mast': ((1.2, 0.0, 3.0), 10, 0.7, 80, 50),
}


def make_yard(root: Path) -> Path:
    """Writes clouds, images, labels, calibration and splits below a folder; returns it."""
    lidar = Lidar(azimuths=240, beams=64, max_range=80.0)
    cameras = {
        name: Camera(_camera(name, position, heading, focal), width=width, height=height)
        for name, (position, heading, focal, width, height) in CAMERAS.items()
    }
    calibration = {name: _calibration(camera) for name, camera in cameras.items()}
    write_json(root / 'calibration.json', calibration)
    write_json(root / 'splits.json', SPLITS)
    for number, name in enumerate([*SPLITS['train'], *SPLITS['val']]):
        rng = np.random.default_rng(number)
        times = np.arange(FRAMES) * 0.1
        scene = sample_scene(rng, times, draw_distance=40.0)
        texture = ground_texture(rng)
        for frame, time in enumerate(times):
            objects = scene.visible(time)
            points, counts = lidar.sweep(objects, scene.weather, rng)
            path = f'{name}/{frame:06d}'
            write(root / f'clouds/{path}.bin', to_forward(points)[:, :4].tobytes())
            view, pixels = View(scene, time, texture), PixelCounts()
            for label, camera in cameras.items():
                image = develop(camera.render(view, objects, pixels)[0], scene.weather.noise, rng)
                _, content = cv2.imencode('.jpg', image[..., ::-1])
                write(root / f'images/{label}/{path}.jpg', content.tobytes())
            labels = [
                _label(item)
                for item in objects
                if item.actor.kind.name in NAMES and counts.get(item.index)
            ]
            write_json(root / f'labels/{path}.json', labels)
    return root


def to_forward(points: np.ndarray) -> np.ndarray:
    """From nuScenes' LiDAR frame (y forward) to one with x forward."""
    return np.concatenate([points[:, 1:2], -points[:, :1], points[:, 2:]], axis=1)


def _calibration(camera: Camera) -> dict:
    lidar_to_camera = np.eye(4)
    lidar_to_camera[:3, :3] = camera.axes
    lidar_to_camera[:3, 3] = camera.axes @ (np.array(LIDAR.position) - camera.origin)
    return dict(intrinsic=camera.intrinsic.tolist(), lidar_to_camera=lidar_to_camera.tolist())


def _label(item) -> dict:
    return {
        'class': NAMES[item.actor.kind.name],
        'centre': (item.box.centre - LIDAR.position).tolist(),
        'size': np.asarray(item.box.size).tolist(),
        'yaw': float(item.box.yaw),
    }


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_json(path: Path, content: object) -> None:
    write(path, json.dumps(content).encode())
