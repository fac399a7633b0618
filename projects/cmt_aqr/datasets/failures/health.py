"""Maps of the healthy share of each sensor, in the frame that the model sees.

Shapes: V cameras, h and w cells or patches of a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmdet3d.registry import TRANSFORMS

from ...geometry import check_range
from .base import DrawnFailure


@TRANSFORMS.register_module()
class PackHealth(Pack3DDetInputs):
    """mmdet3d's packing, with health maps of the size of the model's tokens among the inputs.

    ``inputs['health']`` has ``lidar`` (h, w), rows along y and columns along x, and ``camera``
    (V, h, w), float32 from 0 to 1; see :func:`health_maps`. Cells count from x_min and y_min, so a
    cell and the BEV token of the same index agree.

    Args:
        keys: as for `Pack3DDetInputs`.
        meta_keys: as for `Pack3DDetInputs`.
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
        voxel_size: metres along x, y and z, of the model's voxels.
        bev_stride: voxels along each side of a BEV token.
        image_stride: pixels along each side of an image token.
        samples: number of probes along each side of a cell and of a patch.

    Raises:
        ValueError: for an invalid range, size or stride.
    """

    def __init__(
        self,
        *,
        keys: Sequence[str],
        meta_keys: Sequence[str],
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        bev_stride: int,
        image_stride: int,
        samples: int = 4,
    ) -> None:
        super().__init__(keys, meta_keys)
        check_range(point_cloud_range)
        if min(*voxel_size, bev_stride, image_stride, samples) <= 0:
            raise ValueError(
                f'PackHealth: voxel_size={voxel_size}, bev_stride={bev_stride}, '
                f'image_stride={image_stride} and samples={samples} must be positive'
            )
        self.point_cloud_range = point_cloud_range
        self.settings = dict(
            point_cloud_range=point_cloud_range,
            cell_size=[size * bev_stride for size in voxel_size[:2]],
            patch_size=image_stride,
            samples=samples,
        )

    def pack_single_results(self, results: dict) -> dict:
        """Returns ``inputs`` and ``data_samples``.

        Raises:
            KeyError: the loader of the images has not left their names and shapes.
        """
        packed = super().pack_single_results(results)
        maps = health_maps(results, **self.settings)
        packed['inputs']['health'] = {name: torch.from_numpy(m) for name, m in maps.items()}
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.settings})'


def health_maps(
    results: dict,
    *,
    point_cloud_range: Sequence[float],
    cell_size: Sequence[float],
    patch_size: int,
    samples: int = 4,
) -> dict[str, np.ndarray]:
    """Healthy share of each sensor of a sample after all augmentation.

    Reads the drawn ``failures`` and how scene and images were moved (``lidar_aug_matrix``,
    ``img_aug_matrix``), but no points and no images. Shares of several failures multiply. Places
    without a source in the sensor, such as the black rim of a shrunk image, are left out of every
    mean; a patch of nothing else is healthy.

    Args:
        results: the sample.
        point_cloud_range: metres.
        cell_size: metres along x and y of a BEV cell; cells count from x_min and y_min.
        patch_size: pixels along each side of a patch of the augmented image, counted from its
            upper left corner.
        samples: number of probes along each side of a cell and of a patch.

    Returns:
        ``lidar`` (h, w), rows along y and columns along x, and ``camera`` (V, h, w); float32.

    Raises:
        KeyError: the loader of the images has not left their names and shapes.
    """
    if 'img' in results and not {'camera_names', 'loaded_shapes'} <= set(results):
        raise KeyError(
            'the sample has images but no camera_names and loaded_shapes: load the images with '
            'LoadMultiViewImages of this project'
        )
    low = np.asarray(point_cloud_range[:2], dtype=np.float64)
    extent = np.asarray(point_cloud_range[3:5]) - low
    # A hair less, so that 51.2 / 0.8 is 64 cells and not one more.
    columns, rows = (math.ceil(share - 1e-6) for share in extent / cell_size)
    xy = _probes(rows, columns, samples) * cell_size + low
    return dict(
        lidar=_pool(_lidar_health(results, xy), samples),
        camera=_camera_maps(results, patch_size, samples),
    )


def _lidar_health(results: dict, xy: np.ndarray) -> np.ndarray:
    """Health (h, w) at places (h, w, 2) of the augmented scene."""
    to_keyframe = np.linalg.inv(results.get('lidar_aug_matrix', np.eye(4)))
    # The scene turns about z alone, so any height of a place gives the same x and y.
    xy = xy @ to_keyframe[:2, :2].T + to_keyframe[:2, 3]
    return _combine(results, lambda drawn: drawn.lidar_health(xy), xy.shape[:2])


def _camera_maps(results: dict, patch_size: int, samples: int) -> np.ndarray:
    """(V, h, w): health of every patch of every image."""
    names = results.get('camera_names', ())
    height, width = results['img_shape'][:2] if names else (0, 0)
    rows, columns = math.ceil(height / patch_size), math.ceil(width / patch_size)
    maps = np.ones((len(names), rows, columns), dtype=np.float32)
    shapes = results.get('loaded_shapes', ())
    # Images that are not resized yet may differ in size; each gets a map of its own extent.
    own = [np.diag([width / shape[1], height / shape[0], 1]) for shape in shapes]
    matrices = results.get('img_aug_matrix', own)
    pixels = _probes(rows, columns, samples) * patch_size
    for view, name, matrix, shape in zip(maps, names, matrices, shapes, strict=True):
        view[:] = _pool(_image_health(results, name, pixels, matrix, shape), samples)
    return maps


def _image_health(
    results: dict, camera: str, pixels: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Health at pixels (h, w, 2) of an augmented image; NaN where it shows no loaded pixel.

    The failures give the health of h x w equal patches of the loaded image, whose height and width
    are ``shape``. The matrix (3, 3) takes its pixels to those of the augmented image.
    """
    grid = pixels.shape[:2]
    health = _combine(results, lambda drawn: drawn.camera_health(camera, grid), grid)
    to_loaded = np.linalg.inv(matrix)
    loaded = pixels @ to_loaded[:2, :2].T + to_loaded[:2, 2]
    patch = np.floor(loaded / (shape[1], shape[0]) * grid[::-1]).astype(int)
    inside = ((patch >= 0) & (patch < grid[::-1])).all(axis=-1)
    column, row = np.where(inside[..., None], patch, 0).transpose(2, 0, 1)
    return np.where(inside, health[row, column], np.nan)


def _probes(rows: int, columns: int, samples: int) -> np.ndarray:
    """(rows * samples, columns * samples, 2): column and row of each probe, in cells."""
    x = (np.arange(columns * samples) + 0.5) / samples
    y = (np.arange(rows * samples) + 0.5) / samples
    return np.stack(np.meshgrid(x, y), axis=-1)


def _pool(probes: np.ndarray, samples: int) -> np.ndarray:
    """(rows * samples, columns * samples) -> (rows, columns) float32, the mean of each cell.

    NaN is left out of the mean; a cell of nothing else is healthy.
    """
    rows, columns = (size // samples for size in probes.shape)
    cells = probes.reshape(rows, samples, columns, samples)
    known = ~np.isnan(cells)
    count = known.sum(axis=(1, 3))
    total = np.where(known, cells, 0).sum(axis=(1, 3))
    return np.where(count, total / np.maximum(count, 1), 1).astype(np.float32)


def _combine(
    results: dict, health: Callable[[DrawnFailure], np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """(h, w) float32: product of the health that each failure of the sample leaves."""
    combined = np.ones(shape, dtype=np.float32)
    for drawn in results.get('failures', ()):
        combined *= health(drawn)
    return combined
