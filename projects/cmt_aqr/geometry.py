"""Pure functions that convert between metres, the unit range, pixels and camera rays.

Shapes: B batch, V cameras, Q queries, D depths. Points are in the LiDAR frame (x right, y forward,
z up in nuScenes), in metres, unless stated to be in the unit range, where 0 and 1 are the limits of
the point-cloud range ``(x_min, y_min, z_min, x_max, y_max, z_max)``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .transfer import to_device

# Keeps a division by zero depth finite and preserves the sign of the depth.
_DEPTH_EPS = 1e-6


class Projection(NamedTuple):
    """Points projected into cameras."""

    pixels: Tensor
    """(B, V, Q, 3): u to the right and v downwards, in pixels of the padded image, and 1."""
    depth: Tensor
    """(B, V, Q): metres along the optical axis."""
    visible: Tensor
    """(B, V, Q), bool: in front of the camera and inside the padded image."""


class VoxelGrid(NamedTuple):
    """Grid of the voxels from which a BEV map is computed."""

    voxel_size: Sequence[float]
    """metres along x, y and z"""
    shape: Sequence[int]
    """voxels along z, y and x"""

    def cell_size(self, map_shape: tuple[int, int]) -> tuple[float, float]:
        """Size of a BEV cell along x and y in metres, for a map of this height and width.

        The stride is the ratio of grid and map, rounded, since convolutions round map sizes up.
        """
        strides = [
            round(grid / cells) for grid, cells in zip(self.shape[1:], map_shape, strict=True)
        ]
        return self.voxel_size[0] * strides[1], self.voxel_size[1] * strides[0]


def check_range(point_cloud_range: Sequence[float]) -> None:
    """Raise ``ValueError`` unless the range has six numbers with each minimum below its maximum."""
    low, high = point_cloud_range[:3], point_cloud_range[3:]
    if len(high) != 3 or any(a >= b for a, b in zip(low, high, strict=True)):
        raise ValueError(
            f'point_cloud_range is {list(point_cloud_range)}; it must be '
            '[x_min, y_min, z_min, x_max, y_max, z_max] with every minimum below its maximum'
        )


def unit_to_metres(unit: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """(..., 3) in the unit range -> (..., 3) in metres."""
    low, high = _corners(unit, point_cloud_range)
    return unit * (high - low) + low


def metres_to_unit(points: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """(..., 3) in metres -> (..., 3) in the unit range."""
    low, high = _corners(points, point_cloud_range)
    return (points - low) / (high - low)


def project(points: Tensor, lidar2img: Tensor, image_shape: tuple[int, int]) -> Projection:
    """Project points into every camera, in the precision of the inputs also under autocast.

    Half precision would be off by pixels, and u * depth exceeds the largest float16. The dividing
    depth has no gradient, so that the gradient with respect to depth comes only from the third
    entry of ``pixels``: the released CMT was trained that way.

    Args:
        points: (B, Q, 3), metres.
        lidar2img: (B, V, 4, 4), to ``(u * depth, v * depth, depth, 1)``.
        image_shape: height and width of the padded image, pixels.
    """
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    with torch.autocast(points.device.type, enabled=False):
        scaled = torch.einsum('bqi,bvoi->bvqo', homogeneous, lidar2img)
    depth = scaled[..., 2]
    in_front = depth > 0
    divisor = depth.detach() + torch.where(in_front, _DEPTH_EPS, -_DEPTH_EPS)
    pixels = scaled[..., :3] / divisor[..., None]
    height, width = image_shape
    u, v, _ = pixels.unbind(-1)
    visible = in_front & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return Projection(pixels, depth, visible)


def visible_pairs(projection: Projection, camera_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair of a camera and a point that it sees.

    Reads the number of pairs from the device.

    Args:
        projection: of points into the V cameras.
        camera_mask: (B, V), bool: cameras that a sample has.

    Returns:
        Sample, camera and point (N,) of each pair, in this order of significance.
    """
    return torch.where(projection.visible & camera_mask[..., None])


def depth_bins(
    count: int, point_cloud_range: Sequence[float], like: Tensor, start: float = 1.0
) -> Tensor:
    """(D,) depths in metres from ``start`` to x_max, exclusive, as in CMT."""
    steps = torch.arange(count, device=like.device, dtype=like.dtype)
    return start + steps * (point_cloud_range[3] - start) / count


def lift(pixels: Tensor, depths: Tensor, img2lidar: Tensor) -> Tensor:
    """Points along the rays through pixels, in the precision of the inputs also under autocast.

    Args:
        pixels: (..., P, 3), (u, v, 1) in pixels of the padded image.
        depths: (D,), metres along the optical axis.
        img2lidar: (..., 4, 4), inverse of ``lidar2img``; leading dimensions as ``pixels``.

    Returns:
        (..., P, D, 3), metres in the LiDAR frame.
    """
    # A point at depth d is d * (rotation @ (u, v, 1)) + translation.
    with torch.autocast(pixels.device.type, enabled=False):
        directions = torch.einsum('...pi,...oi->...po', pixels, img2lidar[..., :3, :3])
    origin = img2lidar[..., None, None, :3, 3]
    return directions[..., None, :] * depths[:, None] + origin


def bev_grid(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, 2): x and y of every BEV cell centre in the unit range, row by row.

    Rows run along y and columns along x, as in the maps of MMDetection3D's sparse encoder.
    """
    options = {'device': like.device, 'dtype': like.dtype}
    y = (torch.arange(height, **options) + 0.5) / height
    x = (torch.arange(width, **options) + 0.5) / width
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def bev_cells(
    points: Tensor, point_cloud_range: Sequence[float], cell_size: tuple[float, float]
) -> Tensor:
    """Positions of points on a BEV map, in cells.

    Computed from metres rather than the unit range: a grid may be declared smaller than the range,
    as in the released r50 model, and its first cell still begins at x_min and y_min.

    Args:
        points: (..., 3), metres.
        point_cloud_range: metres.
        cell_size: metres along x and y.

    Returns:
        (..., 2): column (along x) and row (along y); 0.5 is the centre of the first.
    """
    origin, size = to_device(point_cloud_range[:2], points), to_device(cell_size, points)
    return (points[..., :2] - origin) / size


def image_cells(pixels: Tensor, image_shape: tuple[int, int], map_shape: tuple[int, int]) -> Tensor:
    """Positions of pixels on the feature map of an image, in cells.

    Args:
        pixels: (..., 2 or 3), u and v in pixels of the padded image.
        image_shape: height and width of the padded image, pixels.
        map_shape: height and width of the map, cells.

    Returns:
        (..., 2): column and row; 0.5 is the centre of the first.
    """
    cells_per_pixel = [cells / size for cells, size in zip(map_shape, image_shape, strict=True)]
    return pixels[..., :2] * to_device(cells_per_pixel[::-1], pixels)


def token_pixels(height: int, width: int, image_shape: tuple[int, int], like: Tensor) -> Tensor:
    """(height * width, 3): pixel (u, v, 1) at the upper left of each image token, row by row.

    CMT places a token at its corner rather than its centre, as released weights expect.
    """
    options = {'device': like.device, 'dtype': like.dtype}
    v = torch.arange(height, **options) * image_shape[0] / height
    u = torch.arange(width, **options) * image_shape[1] / width
    v, u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack([u, v, torch.ones_like(u)], dim=-1).flatten(0, 1)


def _corners(like: Tensor, point_cloud_range: Sequence[float]) -> tuple[Tensor, Tensor]:
    return to_device(point_cloud_range[:3], like), to_device(point_cloud_range[3:], like)
