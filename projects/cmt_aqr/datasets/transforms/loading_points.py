"""Loaders of clouds that apply sensor failures to each cloud as read from its file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures.points import get_points_type

from ..clouds import CHANNELS, arrange, columns_of, finite
from ..lean_points import LeanLiDARPoints
from ..reading import MissingFileError, reading


@TRANSFORMS.register_module()
class LoadPointsOfKeyframe(LoadPointsFromFile):
    """Loads the cloud of the keyframe and applies ``failures`` to it.

    The channels are x, y, z, intensity and ring, whichever columns the file has, see
    :mod:`projects.cmt_aqr.datasets.clouds`; a channel without a column is zero. Points with values
    that are not finite are left out with a warning.

    Args:
        coord_type: as for mmdet3d's `LoadPointsFromFile`.
        load_dim: number of columns of a file, if the sample's info file declares none.
        use_dim: channels that are kept: their indices, or the number of the first ones.
        norm_intensity: replace the intensity by its tanh.
        backend_args: arguments of mmengine's file backend.

    Raises:
        MissingFileError: the file does not exist.
        DamagedFileError: the file does not fit its columns.
        ValueError: the sample has failures, and `use_dim` leaves out a channel.
    """

    def __init__(
        self,
        *,
        coord_type: str = 'LIDAR',
        load_dim: int = 5,
        use_dim: Sequence[int] | int = 5,
        norm_intensity: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            coord_type=coord_type,
            load_dim=max(load_dim, len(CHANNELS)),  # the parent checks `use_dim` by it
            use_dim=use_dim,
            norm_intensity=norm_intensity,
            backend_args=backend_args,
        )
        self.load_dim = load_dim

    def transform(self, results: dict) -> dict:
        """Adds ``points``."""
        points = _load(self, results, results['lidar_points']['lidar_path'], 'cloud')
        if results.get('failures'):
            if list(self.use_dim) != [0, 1, 2, 3, 4]:
                raise ValueError(
                    f'LoadPointsOfKeyframe: use_dim is {list(self.use_dim)}; failures need all of '
                    'x, y, z, intensity and ring, use_dim=5'
                )
            points = _damaged(results, points, np.eye(4), age=0.0)
        if self.norm_intensity:
            points[:, 3] = np.tanh(points[:, 3])
        used = [*self.use_dim, *range(len(CHANNELS), points.shape[1])]
        points = points if used == [*range(points.shape[1])] else points[:, used]
        lidar = self.coord_type == 'LIDAR'
        kind = LeanLiDARPoints if lidar else get_points_type(self.coord_type)
        results['points'] = kind(points, points_dim=points.shape[1])
        return results


@TRANSFORMS.register_module()
class LoadPointsOfSweeps(LoadPointsFromMultiSweeps):
    """Loads sweeps as mmdet3d does and applies ``failures`` to each before it is merged.

    Takes the arguments of `LoadPointsFromMultiSweeps`, and gives the same points without failures.
    Merging overwrites the ring by the time, so failures of rings cannot act later. Samples without
    sweeps get the time alone. Columns and values are as for `LoadPointsOfKeyframe`.

    Raises:
        MissingFileError: the file of a sweep does not exist.
        DamagedFileError: the file of a sweep does not fit its columns.
        ValueError: the keyframe was loaded with fewer than five channels.
    """

    def transform(self, results: dict) -> dict:
        """Adds the sweeps to ``points``, in the keyframe's frame, with their age in channel 4."""
        keyframe = results['points']
        if keyframe.tensor.shape[1] < len(CHANNELS):
            raise ValueError(
                f'LoadPointsOfSweeps: the cloud has {keyframe.tensor.shape[1]} channels, but the '
                'time replaces the fifth: use_dim=5 in LoadPointsOfKeyframe'
            )
        keyframe.tensor[:, 4] = _ages(keyframe.tensor)
        if keyframe.tensor.shape[1] > len(CHANNELS):
            keyframe = keyframe[:, [*range(len(CHANNELS))]]
        clouds = [keyframe]
        if 'lidar_sweeps' in results:
            for index in self._choose(len(results['lidar_sweeps'])):
                sweep = self._load_sweep(results, results['lidar_sweeps'][index])
                clouds.append(type(keyframe)(sweep, points_dim=len(CHANNELS)))
        elif self.pad_empty_sweeps:
            copy = self._remove_close(keyframe) if self.remove_close else keyframe
            clouds += [copy] * self.sweeps_num
        points = keyframe.cat(clouds)
        all_used = [*self.use_dim] == [*range(len(CHANNELS))]
        results['points'] = points if all_used else points[:, self.use_dim]
        return results

    def _choose(self, available: int) -> np.ndarray:
        """Indices of the sweeps to load: the latest, or in training a random choice."""
        if available <= self.sweeps_num or self.test_mode:
            return np.arange(min(available, self.sweeps_num))
        return np.random.choice(available, self.sweeps_num, replace=False)

    def _load_sweep(self, results: dict, sweep: dict) -> np.ndarray:
        """(N, 5): a sweep in the keyframe's frame, with its age in place of the ring."""
        try:
            points = _load(self, results, sweep['lidar_points']['lidar_path'], 'sweep')
        except MissingFileError as error:
            raise MissingFileError(
                f'{error}: sweeps are a download of their own; load them, or write info files '
                'without them by tools/create_data.py --max-sweeps 0'
            ) from error
        age = results['timestamp'] - sweep['timestamp']
        # The info files' matrix takes row vectors to the keyframe: p' = p R - t.
        lidar2sensor = np.array(sweep['lidar_points']['lidar2sensor'])
        to_keyframe = np.eye(4)
        to_keyframe[:3, :3] = lidar2sensor[:3, :3].T
        to_keyframe[:3, 3] = -lidar2sensor[:3, 3]
        points = _damaged(results, points, to_keyframe, age)
        if self.remove_close:
            points = self._remove_close(points)
        _move(points, lidar2sensor)
        points[:, 4] = age + _ages(points)
        return points[:, : len(CHANNELS)]


def _load(
    loader: LoadPointsFromFile | LoadPointsFromMultiSweeps, results: dict, path: str, what: str
) -> np.ndarray:
    """Finite points of a file, (N, 5), or (N, 6) with a time for each point."""
    with reading(results, path, what):
        points = arrange(loader._load_points(path), columns_of(results, loader.load_dim))
    return finite(results, path, points)


def _move(points: np.ndarray, lidar2sensor: np.ndarray) -> None:
    """Moves points (N, C) to p R - t in place.

    By coordinate, since NumPy takes four times as long for rows of three. Both steps are rounded to
    float32, as in mmdet3d.
    """
    coordinates = np.stack([points[:, axis] for axis in range(3)]).astype(np.float64)
    turned = (lidar2sensor[:3, :3].T @ coordinates).astype(np.float32)
    for axis, offset in enumerate(lidar2sensor[:3, 3:]):
        points[:, axis] = turned[axis] - offset


def _ages(points: np.ndarray) -> np.ndarray | float:
    """Age of each point relative to the timestamp of its cloud, seconds."""
    return points[:, 5] if points.shape[1] > len(CHANNELS) else 0.0


def _damaged(results: dict, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
    """Cloud after all failures of the sample, see `DrawnFailure.damage_points`."""
    for drawn in results.get('failures', ()):
        points = drawn.damage_points(points, to_keyframe, age)
    return points
