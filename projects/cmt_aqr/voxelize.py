"""Hard voxelization of a batch of clouds in plain torch; this module imports with torch alone.

Shapes: B clouds, N points of all clouds together, C values per point, M voxels of all clouds, each
of at most P points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Voxelizer(nn.Module):
    """Hard voxelization; the voxels of each cloud equal those of mmcv's CPU operator bit for bit.

    The cell of a point is ``floor((point - minimum) / voxel_size)`` in float32; points outside the
    range are dropped. Voxels lie in the order in which their first points occur, and hold the first
    P points of their cell, padded with zeros. Only the first ``max_voxels`` of a cloud are kept.

    One stable sort groups the points of all clouds by cell. The cost therefore grows like a sort,
    and the same operations run on every device. mmcv 2.1's own CUDA operator compares all pairs of
    points, and fails for an empty cloud.

    Where ``sparse_shape`` is smaller than the range, the voxels beyond it are dropped, because the
    sparse encoder would take their coordinates for those of other rows. They count towards
    ``max_voxels``, so that the others stay those that mmcv's operator keeps.

    Args:
        voxel_size: metres along x, y and z.
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)``, metres.
        max_num_points: P, the number of points kept in a voxel.
        max_voxels: number of voxels kept of a cloud; a pair is (training, evaluation).
        sparse_shape: cells along z, y and x of the grid that the sparse encoder declares, which
            ``CmtDetector`` passes on; ``None`` for all cells of the range.

    Raises:
        ValueError: the range holds no cell along an axis, or a limit is below 1.
    """

    def __init__(
        self,
        *,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        max_num_points: int,
        max_voxels: int | Sequence[int],
        sparse_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.voxel_size = tuple(voxel_size)
        self.point_cloud_range = tuple(point_cloud_range)
        self.max_num_points = max_num_points
        self.max_voxels = (max_voxels,) * 2 if isinstance(max_voxels, int) else tuple(max_voxels)
        if min(max_num_points, *self.max_voxels) < 1:
            raise ValueError(
                f'max_num_points ({max_num_points}) and max_voxels ({max_voxels}) must be 1 or more'
            )
        low, high = torch.tensor(self.point_cloud_range, dtype=torch.float32).view(2, 3)
        size = torch.tensor(self.voxel_size, dtype=torch.float32)
        # Halves are rounded up, as by C++; torch.round would round them to the even neighbour.
        cells = [math.floor(cells + 0.5) for cells in ((high - low) / size).tolist()]
        if min(cells) < 1:
            raise ValueError(
                f'point_cloud_range {list(point_cloud_range)} holds {cells} voxels of '
                f'{list(voxel_size)} m along x, y and z; it must hold 1 or more along each'
            )
        self.range_shape = tuple(cells[::-1])
        self.sparse_shape = self.range_shape if sparse_shape is None else tuple(sparse_shape)
        # Tensors, because CUDA multiplies by the reciprocal of a Python number, which rounds
        # differently. Buffers, because a copy to the device in every batch would cost time.
        for name, values in (
            ('_low', low.flip(0)),
            ('_size', size.flip(0)),
            ('_range_shape', torch.tensor(self.range_shape, dtype=torch.float32)),
            ('_sparse_shape', torch.tensor(self.sparse_shape, dtype=torch.int32)),
        ):
            self.register_buffer(name, values[:, None], persistent=False)

    @torch.no_grad()
    def forward(self, clouds: Sequence[Tensor]) -> dict[str, Tensor]:
        """Voxels of a batch, with one host read: their number, which is the size of the result.

        Args:
            clouds: B clouds (n, C), x, y and z first, metres. A cloud may be empty. A point with a
                NaN among x, y and z is outside the range.

        Returns:
            ``voxels`` (M, P, C), in the points' dtype; ``num_points`` (M,), int32; ``coors``
            (M, 4), int32: cloud, z, y and x. M may be 0.
        """
        points = torch.cat([*clouds])
        cloud, start = cloud_of_point(clouds)
        cells, inside = self._cells(points)
        first, number = group_equal(self._keys(cloud, cells, inside, len(clouds)))
        index = torch.arange(len(points), device=points.device)
        kept = self._within_limits((first == index) & inside, cloud, start, cells)
        num_voxels = int(kept.sum())
        # What is dropped goes to one more row at the end: to select the rest would read its size.
        row = torch.where(kept, kept.cumsum(0) - 1, num_voxels)
        opener = index.new_empty(num_voxels + 1).scatter_(0, row, index)[:-1]
        row = row[first]
        stored = number < self.max_num_points
        num_points = row.new_zeros(num_voxels + 1, dtype=torch.int32)
        num_points.index_add_(0, row, stored.int())
        end = num_voxels * self.max_num_points
        slot = torch.where(stored, row * self.max_num_points + number, end).clamp(max=end)
        voxels = points.new_zeros(end + 1, points.shape[1]).index_copy_(0, slot, points)
        return {
            'voxels': voxels[:-1].unflatten(0, (num_voxels, self.max_num_points)),
            'num_points': num_points[:-1],
            'coors': torch.cat([cloud.int()[None], cells])[:, opener].t().contiguous(),
        }

    def _cells(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(3, N) int32 cells along z, y and x, and (N,) whether they lie inside the range."""
        cells = points[:, :3].t().flip(0).sub(self._low).div_(self._size).floor_()
        # Compared before they become integers: NaN fails both comparisons.
        inside = ((cells >= 0) & (cells < self._range_shape)).all(dim=0)
        return cells.int(), inside

    def _keys(self, cloud: Tensor, cells: Tensor, inside: Tensor, num_clouds: int) -> Tensor:
        """(N,) one number per cloud and cell; all points outside the range share the last one."""
        outside = num_clouds * math.prod(self.range_shape)
        # The sort takes half the time in 32 bits.
        keys = cloud.int() if outside <= torch.iinfo(torch.int32).max else cloud
        for axis, size in zip(cells, self.range_shape, strict=True):
            keys = keys * size + axis
        return torch.where(inside, keys, outside)

    def _within_limits(self, opens: Tensor, cloud: Tensor, start: Tensor, cells: Tensor) -> Tensor:
        """(N,) the points that open a voxel within ``max_voxels`` and ``sparse_shape``."""
        limit = self.max_voxels[0] if self.training else self.max_voxels[1]
        opened = functional.pad(opens.cumsum(0), (1, 0))  # voxels of all clouds before each point
        declared = (cells < self._sparse_shape).all(dim=0)
        return opens & declared & (opened[:-1] - opened[start][cloud] < limit)


def cloud_of_point(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """For the points of all clouds together, (N,) the cloud of each; and (B,) where clouds start.

    On the clouds' device, without a host read.
    """
    lengths = [len(cloud) for cloud in clouds]
    sizes = torch.tensor(lengths).to(clouds[0].device, non_blocking=True)
    return torch.repeat_interleave(sizes, output_size=sum(lengths)), sizes.cumsum(0) - sizes


def group_equal(keys: Tensor) -> tuple[Tensor, Tensor]:
    """For each of N keys the index of the first equal key, and the number of equal keys before."""
    keys, order = keys.sort(stable=True)
    begins = functional.pad(keys.diff() != 0, (1, 0), value=True)[: len(keys)]
    place = torch.arange(len(keys), device=keys.device)
    begin = torch.where(begins, place, 0).cummax(0).values
    first = torch.empty_like(order).scatter_(0, order, order[begin])
    return first, torch.empty_like(order).scatter_(0, order, place - begin)
