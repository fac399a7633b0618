"""Sensors that repeat their previous keyframe as if it were new."""

from __future__ import annotations

import functools
import pickle
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import load
from mmengine.logging import print_log

from .base import DrawnFailure, SensorFailure

_LONGEST_GAP = 1.0  # seconds
# What a sample needs for each choice of sensors.
_NEEDS = {
    'camera': ('images',),
    'each_camera': ('images',),
    'lidar': (),
    'each_sensor': ('images', 'lidar_points'),
}


@TRANSFORMS.register_module()
class StaleFrame(SensorFailure):
    """Repetition of the previous keyframe by a sensor, in some samples.

    | severity | probability |
    |----------|-------------|
    | 1        | 0.2         |
    | 2        | 0.4         |
    | 3        | 0.6         |

    Pose, calibration, time and labels stay those of the sample, as if a driver published its last
    message again, so the ego motion since then (half a second in nuScenes) is not compensated. A
    repeated cloud comes with its own sweeps, as old as they were for it.

    The probabilities are those of MultiCorrupt's temporal misalignment (Beemelmanns et al., 2024),
    which draws for the LiDAR and for each camera independently, as ``each_sensor`` does here, and
    repeats the previous entry of the info file, even one of another scene.

    The previous keyframe is the latest one of the same log, less than a second before. A sample
    without a previous keyframe, the first of its scene, is unchanged; the number of these samples
    is logged. The log is the ``scene`` or ``scene_token`` of an info, if it has one, or else the
    start of its file name (``LOG__CHANNEL__TIME`` in nuScenes).

    Args:
        ann_file: info file of the dataset, searched for previous keyframes; read once per process.
        sensor: 'camera' for all cameras together, 'each_camera' for each independently, 'lidar', or
            'each_sensor' for the LiDAR and each camera independently.
        severity: from 1 to 3.
        seed: seed of the choice of samples.

    Raises:
        ValueError: ``sensor`` is another word, or the info file does not tell the token, the time
            or the log of a sample.
        FileNotFoundError: the info file does not exist.
    """

    SEVERITIES: ClassVar = (0.2, 0.4, 0.6)

    def __init__(
        self, *, ann_file: str, sensor: str = 'camera', severity: int = 1, seed: int = 0
    ) -> None:
        super().__init__(severity=severity, seed=seed)
        if sensor not in _NEEDS:
            raise ValueError(f'StaleFrame: sensor is {sensor!r}; it must be one of {(*_NEEDS,)}')
        self.NEEDS = ('timestamp', *_NEEDS[sensor])
        self.ann_file = str(ann_file)
        self.sensor = sensor
        with_lidar = sensor in ('lidar', 'each_sensor')
        self._previous = find_previous_frames(self.ann_file, sweeps=with_lidar)

    def draw(
        self, results: dict, rng: np.random.Generator
    ) -> DrawnStaleCameras | DrawnStaleLidar | DrawnStaleSensors | None:
        """Returns the repetition; None without one, or without a previous keyframe.

        Raises:
            ValueError: the sample is not in the info file.
        """
        previous = look_up(self._previous, results['token'], self)
        each = sorted(results.get('images', ()))
        names = dict(each_camera=each, each_sensor=[*each, 'lidar']).get(self.sensor, [self.sensor])
        chosen = [name for name in names if rng.random() < self.level]
        if previous is None or not chosen:
            return None
        lidar = DrawnStaleLidar(previous) if 'lidar' in chosen else None
        cameras = each if self.sensor == 'camera' else [c for c in chosen if c != 'lidar']
        stale = _stale_cameras(results, cameras, previous)
        return DrawnStaleSensors(lidar, stale) if lidar and stale else lidar or stale

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(ann_file={self.ann_file!r}, sensor={self.sensor!r}, '
            f'severity={self.severity}, seed={self.seed})'
        )


@TRANSFORMS.register_module()
class FrozenCamera(SensorFailure):
    """One camera, another in every sample, repeats an image of some keyframes ago.

    | severity | keyframes missed | age in nuScenes |
    |----------|------------------|-----------------|
    | 1        | 2                | 1 s             |
    | 2        | 4                | 2 s             |

    A protocol of this project; otherwise as `StaleFrame`, with the same order of keyframes. A
    sample that is not preceded by as many keyframes is unchanged.

    Args:
        ann_file: info file of the dataset, searched for previous keyframes; read once per process.
        severity: 1 or 2.
        seed: seed of the choice of the camera.

    Raises:
        ValueError: the info file does not tell the log of a sample.
        FileNotFoundError: the info file does not exist.
    """

    SEVERITIES: ClassVar = (2, 4)
    NEEDS: ClassVar = ('timestamp', 'images')

    def __init__(self, *, ann_file: str, severity: int = 1, seed: int = 0) -> None:
        super().__init__(severity=severity, seed=seed)
        self.ann_file = str(ann_file)
        self._previous = find_previous_frames(self.ann_file, sweeps=False)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnStaleCameras | None:
        """Returns the repetition by one camera; None without a keyframe that long ago.

        Raises:
            ValueError: the sample is not in the info file.
        """
        names, token = sorted(results['images']), results['token']
        for _ in range(self.level):
            frame = look_up(self._previous, token, self)
            if frame is None or not names:
                return None
            token = frame.token
        return _stale_cameras(results, [names[rng.integers(len(names))]], frame)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(ann_file={self.ann_file!r}, severity={self.severity}, '
            f'seed={self.seed})'
        )


@dataclass(frozen=True)
class PreviousFrame:
    """Files of a keyframe, as named in the info file; identified by its token."""

    token: str
    timestamp: float = field(repr=False)
    """seconds"""
    images: dict[str, str] = field(repr=False)
    cloud: str = field(repr=False)
    sweeps: list[dict] | None = field(repr=False)
    """``lidar_sweeps`` of the info file; None if it has none, or if they are not needed"""


def look_up(
    previous: Mapping[str, bytes | None], token: str, failure: StaleFrame | FrozenCamera
) -> PreviousFrame | None:
    """Frame before a sample, from :func:`find_previous_frames`.

    Raises:
        ValueError: the sample is not in the info file of the failure.
    """
    if token not in previous:
        raise ValueError(
            f'{type(failure).__name__}: sample {token} is not in {failure.ann_file}; ann_file must '
            'be the info file of the dataset'
        )
    packed = previous[token]
    return None if packed is None else pickle.loads(packed)


def _stale_cameras(
    results: dict, cameras: Iterable[str], previous: PreviousFrame
) -> DrawnStaleCameras | None:
    """Repetition by those of the cameras that have an image in both keyframes."""
    images = results['images']
    able = sorted(c for c in cameras if 'img_path' in images[c] and c in previous.images)
    return DrawnStaleCameras(tuple(able), previous) if able else None


@dataclass(frozen=True)
class DrawnStaleCameras(DrawnFailure):
    """Cameras that repeat the previous keyframe."""

    cameras: tuple[str, ...]
    previous: PreviousFrame

    def alter(self, results: dict) -> None:
        """Changes ``img_path`` of the cameras."""
        images = dict(results['images'])
        for name in self.cameras:
            path = _beside(images[name]['img_path'], self.previous.images[name])
            images[name] = {**images[name], 'img_path': path}
        results['images'] = images

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns 0 for a camera that repeats its image."""
        return np.full(shape, camera not in self.cameras, dtype=np.float32)


@dataclass(frozen=True)
class DrawnStaleLidar(DrawnFailure):
    """LiDAR that repeats the cloud of the previous keyframe."""

    previous: PreviousFrame

    def alter(self, results: dict) -> None:
        """Changes ``lidar_path`` and ``lidar_sweeps``."""
        own = results['lidar_points']['lidar_path']
        path = _beside(own, self.previous.cloud)
        results['lidar_points'] = {**results['lidar_points'], 'lidar_path': path}
        results['lidar_path'] = path
        # The first keyframe of a scene has none, and its cloud is repeated as it was.
        own_sweeps = results.pop('lidar_sweeps', ())
        if self.previous.sweeps is not None:
            results['lidar_sweeps'] = self._sweeps(results, own_sweeps)

    def _sweeps(self, results: dict, own_sweeps: Sequence[dict]) -> list[dict]:
        """The sweeps of the previous keyframe, as old for this sample as they were for it."""
        delay = results['timestamp'] - self.previous.timestamp
        return [
            {
                **sweep,
                'timestamp': sweep['timestamp'] + delay,
                'lidar_points': {
                    **sweep['lidar_points'],
                    'lidar_path': self._sweep_path(
                        results, own_sweeps, sweep['lidar_points']['lidar_path']
                    ),
                },
            }
            for sweep in self.previous.sweeps
        ]

    def _sweep_path(self, results: dict, own_sweeps: Sequence[dict], name: str) -> str:
        """Path of a sweep: below the data root, among the keyframes, or beside the own sweeps.

        Raises:
            ValueError: the sample has no sweep that shows the folder.
        """
        keyframe = Path(results['lidar_points']['lidar_path'])
        folders = len(Path(self.previous.cloud).parts)
        if folders > 1:  # all paths of the infos start at the data root
            return str(keyframe.parents[folders - 1] / name)
        if 'samples' in Path(name).parts:  # a sweep that is a keyframe, as mmdet3d recognises it
            return str(keyframe.with_name(Path(name).name))
        own = [Path(s['lidar_points']['lidar_path']) for s in own_sweeps]
        others = [path for path in own if path.parent != keyframe.parent]
        if not others:
            raise ValueError(
                f'StaleFrame: sample {results["token"]} has no sweeps of its own, which would show '
                f'the folder of {name}'
            )
        return str(others[0].with_name(Path(name).name))

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Returns 0 everywhere."""
        return np.zeros(xy.shape[:-1], dtype=np.float32)


@dataclass(frozen=True)
class DrawnStaleSensors(DrawnFailure):
    """LiDAR and cameras that repeat the previous keyframe."""

    lidar: DrawnStaleLidar
    cameras: DrawnStaleCameras

    def alter(self, results: dict) -> None:
        """Changes the paths of the cloud, its sweeps and the cameras' images."""
        self.lidar.alter(results)
        self.cameras.alter(results)

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Returns 0 everywhere."""
        return self.lidar.lidar_health(xy)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns zeros for a camera that repeats its image, and ones for the others."""
        return self.cameras.camera_health(camera, shape)


def _beside(path: str, name: str) -> str:
    """Full path of a file, from that of another one whose name has as many folders in the infos."""
    return str(Path(path).parents[len(Path(name).parts) - 1] / name)


@functools.lru_cache(maxsize=4)
def find_previous_frames(ann_file: str, *, sweeps: bool) -> Mapping[str, bytes | None]:
    """Finds the previous keyframe of every sample of an info file.

    Args:
        ann_file: info file of mmdet3d's v1.1 format.
        sweeps: whether to keep the sweeps of the frames, which take most of the memory.

    Returns:
        By token, a pickled `PreviousFrame`, which takes less memory than the object and is shared
        by worker processes, or None.

    Raises:
        ValueError: the info of a sample does not tell its token, its time or its log.
    """
    logs = defaultdict(list)
    for number, info in enumerate(load(ann_file)['data_list']):
        lacking = [key for key in ('token', 'timestamp') if key not in info]
        if lacking:
            raise ValueError(
                f'StaleFrame: entry {number} of {ann_file} has no {" and no ".join(lacking)}, by '
                'which its previous keyframe is found'
            )
        logs[log_name(info)].append(info)
    previous = {}
    for frames in logs.values():
        frames.sort(key=lambda info: info['timestamp'])
        for before, info in zip([None, *frames], frames, strict=False):
            gap = info['timestamp'] - before['timestamp'] if before else np.inf
            previous[info['token']] = _pack(before, sweeps) if gap < _LONGEST_GAP else None
    print_log(
        f'StaleFrame: {sum(frame is None for frame in previous.values())} of {len(previous)} '
        f'samples of {ann_file} have no keyframe less than {_LONGEST_GAP:g} s before them and are '
        'unchanged',
        logger='current',
    )
    return previous


def log_name(info: dict) -> str:
    """Name of the log of a sample: its ``scene`` or ``scene_token``, or the start of its file name.

    Raises:
        ValueError: it has none of them.
    """
    for key in ('scene', 'scene_token'):
        if key in info:
            return info[key]
    name = Path(info.get('lidar_points', {}).get('lidar_path', '')).name
    if name.count('__') != 2:
        raise ValueError(
            f'the log of sample {info["token"]} is unknown: its info has no scene or scene_token, '
            f'and its cloud {name} is not named LOG__CHANNEL__TIME'
        )
    return name.split('__')[0]


def _pack(info: dict, sweeps: bool) -> bytes:
    images = {
        name: camera['img_path']
        for name, camera in info.get('images', {}).items()
        if 'img_path' in camera
    }
    frame = PreviousFrame(
        token=info['token'],
        timestamp=info['timestamp'],
        images=images,
        cloud=info.get('lidar_points', {}).get('lidar_path', ''),
        sweeps=info.get('lidar_sweeps') if sweeps else None,
    )
    return pickle.dumps(frame)
