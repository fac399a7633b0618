"""Loaders of clouds that apply sensor failures to each cloud as read from its file."""

from __future__ import annotations

import numpy as np
from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps
from mmdet3d.registry import TRANSFORMS

from ..reading import reading


@TRANSFORMS.register_module()
class LoadPointsOfKeyframe(LoadPointsFromFile):
    """Loads the cloud of the keyframe with mmdet3d's loader and applies ``failures`` to it.

    Takes the arguments of `LoadPointsFromFile`.

    Raises:
        MissingFileError: the file does not exist.
        DamagedFileError: the file is not a cloud of `load_dim` channels.
        ValueError: the sample has failures, and `use_dim` leaves out a channel.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``points``."""
        with reading(results, results['lidar_points']['lidar_path'], 'cloud'):
            results = super().transform(results)
        if results.get('failures'):
            if list(self.use_dim) != [0, 1, 2, 3, 4]:
                raise ValueError(
                    f'LoadPointsOfKeyframe: use_dim is {list(self.use_dim)}; failures need all of '
                    'x, y, z, intensity and ring, use_dim=5'
                )
            points = results['points']
            damaged = _damaged(results, points.tensor.numpy(), np.eye(4), age=0.0)
            results['points'] = points.new_point(damaged)
        return results


@TRANSFORMS.register_module()
class LoadPointsOfSweeps(LoadPointsFromMultiSweeps):
    """Loads sweeps as mmdet3d does and applies ``failures`` to each before it is merged.

    Takes the arguments of `LoadPointsFromMultiSweeps`, and gives the same points without failures.
    Merging overwrites the ring by the time, so failures of rings cannot act later.

    Raises:
        MissingFileError: the file of a sweep does not exist.
        DamagedFileError: the file of a sweep is not a cloud of `load_dim` channels.
    """

    def transform(self, results: dict) -> dict:
        """Adds the sweeps to ``points``, in the keyframe's frame, with their age in channel 4."""
        keyframe = results['points']
        keyframe.tensor[:, 4] = 0
        clouds = [keyframe]
        if 'lidar_sweeps' in results:
            for index in self._choose(len(results['lidar_sweeps'])):
                sweep = self._load_sweep(results, results['lidar_sweeps'][index])
                clouds.append(keyframe.new_point(sweep))
        elif self.pad_empty_sweeps:
            copy = self._remove_close(keyframe) if self.remove_close else keyframe
            clouds += [copy] * self.sweeps_num
        results['points'] = keyframe.cat(clouds)[:, self.use_dim]
        return results

    def _choose(self, available: int) -> np.ndarray:
        """Indices of the sweeps to load: the latest, or in training a random choice."""
        if available <= self.sweeps_num or self.test_mode:
            return np.arange(min(available, self.sweeps_num))
        return np.random.choice(available, self.sweeps_num, replace=False)

    def _load_sweep(self, results: dict, sweep: dict) -> np.ndarray:
        """(N, load_dim): a sweep in the keyframe's frame, with its age in place of the ring."""
        path = sweep['lidar_points']['lidar_path']
        with reading(results, path, 'sweep'):
            points = np.copy(self._load_points(path)).reshape(-1, self.load_dim)
        age = results['timestamp'] - sweep['timestamp']
        # The info files' matrix takes row vectors to the keyframe: p' = p R - t.
        lidar2sensor = np.array(sweep['lidar_points']['lidar2sensor'])
        to_keyframe = np.eye(4)
        to_keyframe[:3, :3] = lidar2sensor[:3, :3].T
        to_keyframe[:3, 3] = -lidar2sensor[:3, 3]
        points = _damaged(results, points, to_keyframe, age)
        if self.remove_close:
            points = self._remove_close(points)
        points[:, :3] = points[:, :3] @ lidar2sensor[:3, :3]
        points[:, :3] -= lidar2sensor[:3, 3]
        points[:, 4] = age
        return points


def _damaged(results: dict, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
    """Cloud after all failures of the sample, see `DrawnFailure.damage_points`."""
    for drawn in results.get('failures', ()):
        points = drawn.damage_points(points, to_keyframe, age)
    return points
