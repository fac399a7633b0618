"""Calibration file of a single frame: the cloud, and the image and matrices of each camera.

docs/inference.md has an example. The names are those of MMDetection3D's info files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.fileio import load

from ..usage_error import UsageError, did_you_mean

SUFFIXES = ('.json', '.yaml', '.yml')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')
# Keys of each level, first the required ones and then the others.
TOP = (('lidar', 'cameras'), ('timestamp',))
LIDAR = (('cloud', 'num_pts_feats'), ('lidar2ego',))
CAMERA = (('image', 'cam2img', 'lidar2cam'), ('cam2ego',))
# Largest deviation of a rotation matrix from an orthogonal one.
TOLERANCE = 0.01


def read_calibration(file: Path) -> dict:
    """Entry of an info file for the frame that a calibration file describes.

    Args:
        file: JSON or YAML file in the folder of the cloud and the images.

    Raises:
        UsageError: the file does not follow the schema, names a file that does not exist, or omits
            an image of its folder.
    """
    try:
        content = load(file)
    except Exception as error:  # of the JSON or the YAML parser
        raise UsageError(f'{file} cannot be read: {" ".join(str(error).split())}') from None
    _check_keys(file, content, TOP)
    lidar, cameras = content['lidar'], content['cameras']
    _check_keys(f'{file}: lidar', lidar, LIDAR)
    if not isinstance(cameras, dict):
        raise UsageError(f'{file}: cameras must map the name of each camera to its calibration')
    images = {name: _camera(file, name, camera) for name, camera in cameras.items()}
    _check_images(file, images)
    cloud = _existing(f'{file}: lidar: cloud', file.parent, lidar['cloud'])
    features = lidar['num_pts_feats']
    if not isinstance(features, int) or features < 4:
        raise UsageError(
            f'{file}: lidar: num_pts_feats is {features!r}; it must be the number of values of a '
            'point, 4 or more: x, y, z, intensity'
        )
    row = 4 * lidar['num_pts_feats']
    if cloud.stat().st_size % row:
        raise UsageError(
            f'{file}: lidar: {cloud.name} has {cloud.stat().st_size} bytes, which are no whole '
            f'points of num_pts_feats={lidar["num_pts_feats"]} float32 values'
        )
    points = dict(lidar_path=str(cloud), num_pts_feats=lidar['num_pts_feats'])
    if 'lidar2ego' in lidar:
        points['lidar2ego'] = _matrix(f'{file}: lidar: lidar2ego', lidar['lidar2ego'], 4)
    return dict(
        token=file.parent.resolve().name,
        sample_idx=0,
        timestamp=float(content.get('timestamp', 0)),
        lidar_points=points,
        images=images,
        instances=[],
    )


def _camera(file: Path, name: str, camera: Mapping) -> dict:
    """Checked entry of a camera."""
    where = f'{file}: camera {name}'
    _check_keys(where, camera, CAMERA)
    entry = dict(
        img_path=str(_existing(f'{where}: image', file.parent, camera['image'])),
        cam2img=_matrix(f'{where}: cam2img', camera['cam2img'], 3),
    )
    for key in ('lidar2cam', 'cam2ego'):
        if key in camera:
            entry[key] = _matrix(f'{where}: {key}', camera[key], 4)
    return entry


def _check_keys(where: object, value: object, keys: tuple[Sequence[str], Sequence[str]]) -> None:
    """Raise a UsageError unless a value is a mapping with all required and no unknown keys."""
    required, others = keys
    if not isinstance(value, dict):
        raise UsageError(f'{where} must have the keys {", ".join(required)}')
    for key in value:
        if key not in (*required, *others):
            known = [*required, *others]
            hint = did_you_mean(str(key), known) or f'; known: {", ".join(known)}'
            raise UsageError(f'{where} has an unknown key {key!r}{hint}')
    missing = [key for key in required if key not in value]
    if missing:
        raise UsageError(f'{where} lacks {", ".join(missing)}')


def _matrix(where: str, value: object, size: int) -> list[list[float]]:
    """Checked matrix: an intrinsic one of size 3, or a rigid motion of size 4."""
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise UsageError(f'{where} must be a {size} x {size} matrix of numbers')
    last = np.eye(size)[-1]
    if not np.allclose(matrix[-1], last):
        raise UsageError(f'{where}: the last row must be {last.astype(int).tolist()}')
    rotation = matrix[:3, :3]
    if size == 4 and not np.allclose(rotation @ rotation.T, np.eye(3), atol=TOLERANCE):
        raise UsageError(f'{where}: its first three rows and columns are no rotation')
    return matrix.tolist()


def _existing(where: str, folder: Path, name: object) -> Path:
    """Path of a file of the folder."""
    path = folder / str(name)
    if not path.is_file():
        hint = did_you_mean(str(name), [entry.name for entry in folder.iterdir()])
        raise UsageError(f'{where} {name} does not exist in {folder}{hint}')
    return path.resolve()


def _check_images(file: Path, images: Mapping[str, Mapping]) -> None:
    """Raise a UsageError for an image of the folder that no camera names."""
    named = {Path(camera['img_path']).name for camera in images.values()}
    for path in sorted(file.parent.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve().name not in named:
            raise UsageError(
                f'{path} has no calibration: {file.name} lacks a camera with this image; its '
                f'cameras are {", ".join(images) or "none"}'
            )
