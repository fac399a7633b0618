"""Statistics of raw points and images that show a sensor's condition, on any device.

Shapes: B batch, V cameras, R rows and A columns of a range image, h and w cells of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cameras import Cameras
from ..geometry import image_cells, project
from ..voxelize import cloud_of_point

# Added to mean differences of normalised pixels before the logarithm.
_FLAT = 1e-3


class RangeImage(nn.Module):
    """Range image of the latest sweep: what each beam of a rotating LiDAR returned.

    Rows are elevations from low to high, columns are azimuths from -180° to 180°. Lost beams are
    empty rows, a limited field of view empty columns, and a vanished object leaves a hole below the
    horizon, where sound beams end on the ground.

    Args:
        rows: R, the number of beams.
        columns: A, at most the number of firings in a turn.
        elevation: lower limit of the lowest and upper limit of the highest row, degrees; by default
            of the Velodyne HDL-32E of nuScenes.
        age_dim: channel of the points with their age in seconds, of which only points of age 0 are
            taken; ``None`` for clouds without past sweeps.
    """

    CHANNELS = 3

    def __init__(
        self,
        *,
        rows: int = 32,
        columns: int = 360,
        elevation: tuple[float, float] = (-31.33, 11.33),
        age_dim: int | None = 4,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.columns = columns
        self.elevation = tuple(elevation)
        self.age_dim = age_dim

    @torch.no_grad()
    def forward(self, clouds: Sequence[Tensor]) -> Tensor:
        """Range image of each cloud, without a host read or a loop over samples.

        Args:
            clouds: B clouds (n, C): x, y, z in metres in the LiDAR frame, intensity, and more.

        Returns:
            (B, 3, R, A): distance of the nearest return in metres, 0 without a return; log(1 + n)
            of n returns; and their mean intensity.
        """
        points = torch.cat([*clouds]).float()
        sample, _ = cloud_of_point(clouds)
        distance = points[:, :3].norm(dim=1)
        place = self._cells(points)
        row, column = place.floor().long().unbind(-1)
        seen = (row >= 0) & (row < self.rows)
        if self.age_dim is not None:
            seen &= points[:, self.age_dim] == 0
        cells = len(clouds) * self.rows * self.columns
        index = (sample * self.rows + row) * self.columns + column.clamp(max=self.columns - 1)
        index = torch.where(seen, index, cells)  # all others share one more cell
        nearest = points.new_full((cells + 1,), torch.inf)
        nearest.scatter_reduce_(0, index, distance, 'amin')
        count, intensity = sum_cells(index, [torch.ones_like(distance), points[:, 3]], cells)
        channels = [
            torch.where(count > 0, nearest[:-1], 0),
            count.log1p(),
            intensity / count.clamp(min=1),
        ]
        image = torch.stack(channels).view(self.CHANNELS, len(clouds), self.rows, self.columns)
        return image.transpose(0, 1)

    def _cells(self, points: Tensor) -> Tensor:
        """(..., 3) metres -> (..., 2), row and column; 0.5 is the centre of the first."""
        x, y, z = points[..., :3].unbind(-1)
        low, high = map(math.radians, self.elevation)
        row = (torch.atan2(z, torch.hypot(x, y)) - low) / (high - low) * self.rows
        return torch.stack([row, (torch.atan2(y, x) / math.tau + 0.5) * self.columns], dim=-1)

    def grid(self, points: Tensor) -> Tensor:
        """(..., 3) metres -> (..., 2), x and y as ``grid_sample`` takes them."""
        row, column = self._cells(points).unbind(-1)
        return torch.stack([column / self.columns, row / self.rows], dim=-1) * 2 - 1

    def points(self, image: Tensor) -> Tensor:
        """Range image (B, 3, R, A) -> points (B, R * A, 3) in metres; the origin without a return.

        Directions are those of the centres of the cells.
        """
        low, high = map(math.radians, self.elevation)
        steps = [
            torch.arange(n, device=image.device, dtype=image.dtype) + 0.5
            for n in (self.rows, self.columns)
        ]
        row, column = torch.meshgrid(*steps, indexing='ij')
        elevation = low + row / self.rows * (high - low)
        azimuth = (column / self.columns - 0.5) * math.tau
        flat = elevation.cos()
        rays = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], dim=-1)
        return (image[:, 0, ..., None] * rays).flatten(1, 2)


class PixelStatistics(nn.Module):
    """Brightness and sharpness of the cells of each image.

    Args:
        cell: pixels along each side of a cell; about half an image token.
    """

    CHANNELS = 5

    def __init__(self, *, cell: int) -> None:
        super().__init__()
        self.cell = cell

    @torch.no_grad()
    def forward(self, imgs: Tensor) -> Tensor:
        """(B, V, 3, H, W) normalised images -> (B, V, 5, h, w).

        The mean of each colour, and the logarithms of the mean absolute first and second
        differences of the brightness: blur lowers, noise raises the second more than the first.
        """
        flat = imgs.flatten(0, 1).float()
        grey = F.pad(flat.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode='replicate')
        inner = grey[..., 1:-1, 1:-1]
        right, left = grey[..., 1:-1, 2:], grey[..., 1:-1, :-2]
        below, above = grey[..., 2:, 1:-1], grey[..., :-2, 1:-1]
        slope = (right - inner).abs() + (below - inner).abs()
        bend = (right + left + below + above - 4 * inner).abs()
        means = F.avg_pool2d(torch.cat([flat, slope, bend], dim=1), self.cell, ceil_mode=True)
        colours, differences = means.split([3, 2], dim=1)
        statistics = torch.cat([colours, (differences + _FLAT).log()], dim=1)
        return statistics.unflatten(0, imgs.shape[:2])


PROJECTED_CHANNELS = 4


def project_returns(points: Tensor, values: Tensor, cameras: Cameras, shape: tuple) -> Tensor:
    """What the LiDAR returned within each cell of each image.

    Args:
        points: (B, N, 3), metres; the origin for no return.
        values: (B, N), intensity.
        cameras: of the batch.
        shape: h and w.

    Returns:
        (B, V, 4, h, w): log(1 + n) of n returns, and the means of their inverse depth in 1/m, of
        their height in metres in the LiDAR frame, and of their intensity; 0 without a return.
    """
    projection = project(points, cameras.lidar2img, cameras.image_shape)
    returned = points.any(dim=-1)[:, None]
    seen = projection.visible & cameras.camera_mask[..., None] & returned
    column, row = image_cells(projection.pixels, cameras.image_shape, shape).long().unbind(-1)
    batch, views = seen.shape[:2]
    view = torch.arange(batch * views, device=points.device).view(batch, views, 1)
    cells = batch * views * shape[0] * shape[1]
    index = torch.where(seen, (view * shape[0] + row) * shape[1] + column, cells).flatten()
    nearness = projection.depth.clamp(min=1e-3).reciprocal()
    height, intensity = (x[:, None].expand_as(nearness) for x in (points[..., 2], values))
    ones = torch.ones_like(nearness)
    sums = sum_cells(index, [x.flatten() for x in (ones, nearness, height, intensity)], cells)
    count, *others = (x.view(batch, views, *shape) for x in sums)
    means = [x / count.clamp(min=1) for x in others]
    return torch.stack([count.log1p(), *means], dim=2)


def sum_cells(index: Tensor, values: Sequence[Tensor], cells: int) -> Tensor:
    """Sums of k values (N,) over each cell, (k, cells); the index ``cells`` counts nowhere."""
    stacked = torch.stack([*values])
    return stacked.new_zeros(len(stacked), cells + 1).index_add_(1, index, stacked)[:, :-1]
