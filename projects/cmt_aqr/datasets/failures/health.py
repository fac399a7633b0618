"""From drawn failures to maps of health in the frame that the model sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ...geometry import check_range
from .base import DrawnFailure


@TRANSFORMS.register_module()
class PackHealth(BaseTransform):
    """Maps of the healthy share of each sensor; stands after all augmentation.

    It reads what was drawn (``failures``), whole sensors taken away by `ModalMask3D`
    (``dropped_modality``), and how scene and images were moved (``lidar_aug_matrix``,
    ``img_aug_matrix``); no points and no images. Shares of several failures multiply. What has no
    source in the sensor, such as the black rim of a shrunk image, is left out of every mean; where
    nothing else is in a patch, it is healthy.

    Args:
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
        cell_size: metres along each side of a BEV cell. Cells count from x_min and y_min on, so
            where the size is that of the model's BEV tokens, cell and token of one index agree.
        patch_size: pixels along each side of a patch of the image that the model sees, counted
            from its upper left corner.
        samples: places at which each cell and patch is probed, along each side.

    Raises:
        ValueError: for a range or sizes that make no sense.
    """

    def __init__(
        self,
        *,
        point_cloud_range: Sequence[float],
        cell_size: float = 0.8,
        patch_size: int = 16,
        samples: int = 4,
    ) -> None:
        check_range(point_cloud_range)
        if cell_size <= 0 or patch_size < 1 or samples < 1:
            raise ValueError(
                f'PackHealth: cell_size={cell_size} must be positive, patch_size={patch_size} and '
                f'samples={samples} at least 1'
            )
        self.low = np.asarray(point_cloud_range[:2], dtype=np.float64)
        extent = np.asarray(point_cloud_range[3:5]) - self.low
        # A hair less, so that 51.2 / 0.8 is 64 cells and not one more.
        self.columns, self.rows = (math.ceil(side / cell_size - 1e-6) for side in extent)
        self.cell_size = cell_size
        self.patch_size = patch_size
        self.samples = samples

    def transform(self, results: dict) -> dict:
        """Adds ``health`` and ``sensor_health``.

        ``health`` has ``lidar`` (h, w), rows along y and columns along x, and ``camera``
        (V, h, w), both float32 from 0 to 1; ``sensor_health`` the mean of each map as ``lidar`` and
        by the cameras' names, floats.

        Raises:
            KeyError: where the loader of the images has not left their names and shapes.
        """
        if 'img' in results and not {'camera_names', 'loaded_shapes'} <= set(results):
            raise KeyError(
                'the sample has images but no camera_names and loaded_shapes: health needs images '
                'to be loaded by LoadMultiViewImages of this project'
            )
        names = results.get('camera_names', ())
        lidar, camera = self._lidar(results), self._cameras(results, names)
        dropped = results.get('dropped_modality')
        if dropped is not None:
            (lidar if dropped == 'lidar' else camera)[:] *= 0
        results['health'] = dict(lidar=_or_healthy(lidar), camera=_or_healthy(camera))
        results['sensor_health'] = dict(
            lidar=_mean(lidar),
            **{name: _mean(view) for name, view in zip(names, camera, strict=True)},
        )
        return results

    def _lidar(self, results: dict) -> np.ndarray:
        """(h, w): health of every BEV cell."""
        to_keyframe = np.linalg.inv(results.get('lidar_aug_matrix', np.eye(4)))
        # The scene turns about z alone, so any height of a place gives the same x and y.
        xy = self._places(self.rows, self.columns) * self.cell_size + self.low
        xy = xy @ to_keyframe[:2, :2].T + to_keyframe[:2, 3]
        return self._pool(_combine(results, lambda drawn: drawn.lidar_health(xy), xy.shape[:2]))

    def _cameras(self, results: dict, names: Sequence[str]) -> np.ndarray:
        """(V, h, w): health of every patch of every image, NaN where it has no source."""
        height, width = results['img_shape'][:2] if names else (0, 0)
        rows, columns = math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)
        maps = np.ones((len(names), rows, columns), dtype=np.float32)
        matrices = results.get('img_aug_matrix', [np.eye(3)] * len(names))
        shapes = results.get('loaded_shapes', ())
        pixels = self._places(rows, columns) * self.patch_size
        for view, name, matrix, shape in zip(maps, names, matrices, shapes, strict=True):
            view[:] = self._pool(_seen_health(results, name, pixels, matrix, shape))
        return maps

    def _places(self, rows: int, columns: int) -> np.ndarray:
        """(rows * samples, columns * samples, 2): column and row of each place, in cells."""
        x = (np.arange(columns * self.samples) + 0.5) / self.samples
        y = (np.arange(rows * self.samples) + 0.5) / self.samples
        return np.stack(np.meshgrid(x, y), axis=-1)

    def _pool(self, places: np.ndarray) -> np.ndarray:
        """(rows * samples, columns * samples) -> (rows, columns), the mean of each cell."""
        rows, columns = (size // self.samples for size in places.shape)
        cells = places.reshape(rows, self.samples, columns, self.samples)
        known = ~np.isnan(cells)
        count = known.sum(axis=(1, 3))
        total = np.where(known, cells, 0).sum(axis=(1, 3))
        return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _seen_health(
    results: dict, camera: str, pixels: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Health at pixels (h, w, 2) of an augmented image, by the matrix (3, 3) that made it.

    The loaded image, of the given height and width, is divided into as many patches as there are
    pixels, h x w. NaN where a pixel does not come from it.
    """
    health = _combine(
        results, lambda drawn: drawn.camera_health(camera, pixels.shape[:2]), pixels.shape[:2]
    )
    to_loaded = np.linalg.inv(matrix)
    loaded = pixels @ to_loaded[:2, :2].T + to_loaded[:2, 2]
    patch = np.floor(loaded / (shape[1], shape[0]) * health.shape[::-1]).astype(int)
    inside = ((patch >= 0) & (patch < health.shape[::-1])).all(axis=-1)
    column, row = np.where(inside[..., None], patch, 0).transpose(2, 0, 1)
    return np.where(inside, health[row, column], np.nan)


def _or_healthy(health: np.ndarray) -> np.ndarray:
    """A map with 1 where there is no source."""
    return np.where(np.isnan(health), np.float32(1), health)


def _mean(health: np.ndarray) -> float:
    """Mean of a map where there is a source; 1 where there is none at all."""
    known = health[~np.isnan(health)]
    return float(known.mean()) if known.size else 1.0


def _combine(
    results: dict, health: Callable[[DrawnFailure], np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """The product of what all failures of a sample leave, (h, w) float32."""
    combined = np.ones(shape, dtype=np.float32)
    for drawn in results.get('failures', ()):
        combined *= health(drawn)
    return combined
