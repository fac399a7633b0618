"""Check of the voxelizer against a loop over points."""

import numpy as np
import torch

from .result import Comparison, Result, row_error

VOXEL_SIZE = (0.1, 0.1, 0.2)
POINT_CLOUD_RANGE = (-5.0, -5.0, -1.0, 5.0, 5.0, 1.0)
MAX_POINTS, MAX_VOXELS = 3, 1500


def check_voxels(device: torch.device) -> Result:
    """Check full and dropped voxels, points outside the range and at its limits, an empty cloud.

    Voxelization does no arithmetic on the points, so the voxels must be equal bit for bit.
    """
    from ..voxelize import Voxelizer

    clouds = [_random_cloud(4000), np.zeros((0, 5), dtype=np.float32), _random_cloud(300)]
    voxelizer = Voxelizer(
        voxel_size=VOXEL_SIZE,
        point_cloud_range=POINT_CLOUD_RANGE,
        max_num_points=MAX_POINTS,
        max_voxels=MAX_VOXELS,
    ).to(device)
    found = voxelizer([torch.from_numpy(cloud).to(device) for cloud in clouds])
    found = {name: tensor.cpu() for name, tensor in found.items()}
    expected = reference(clouds)
    what = f'{len(clouds)} clouds, one empty, {len(expected["coors"])} voxels, against a loop'
    if len(found['coors']) != len(expected['coors']):
        return Result(what=what, faults=[f'{len(found["coors"])} voxels were made'])
    comparisons = [
        Comparison(name, row_error(*(x.reshape(len(x), -1) for x in (found[name], tensor))), 0.0)
        for name, tensor in expected.items()
    ]
    alone = voxelizer([torch.from_numpy(clouds[1]).to(device)])
    faults = [] if len(alone['coors']) == 0 else ['an empty cloud alone has voxels']
    return Result(what=what, comparisons=comparisons, faults=faults)


def reference(clouds: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """``voxels``, ``num_points`` and ``coors`` of clouds (n, 5) by definition."""
    low = np.float32(POINT_CLOUD_RANGE[:3])
    size = np.float32(VOXEL_SIZE)
    cells = np.round((np.float32(POINT_CLOUD_RANGE[3:]) - low) / size)
    voxels, counts, coors = [], [], []
    for index, cloud in enumerate(clouds):
        members: dict[tuple, list] = {}
        for point in cloud:
            cell = np.floor((point[:3] - low) / size)
            inside = ((cell >= 0) & (cell < cells)).all()
            if inside and (tuple(cell) in members or len(members) < MAX_VOXELS):
                members.setdefault(tuple(cell), []).append(point)
        for cell, points in members.items():
            kept = np.zeros((MAX_POINTS, cloud.shape[1]), dtype=np.float32)
            count = min(len(points), MAX_POINTS)
            kept[:count] = points[:count]
            voxels.append(kept)
            counts.append(count)
            coors.append([index, *cell[::-1]])
    arrays = {'voxels': voxels, 'num_points': counts, 'coors': coors}
    return {name: torch.from_numpy(np.array(rows)) for name, rows in arrays.items()}


def _random_cloud(num_points: int) -> np.ndarray:
    """(num_points, 5), some outside the range, many close together, some on edges of cells."""
    random = np.random.default_rng(num_points)
    cloud = random.uniform(-1.2, 1.2, (num_points, 5)) * [5, 5, 1, 1, 1]
    cloud[: num_points // 4, :3] *= 0.05
    cloud[num_points // 2 : num_points // 2 + 50, :3] = random.integers(-5, 5, (50, 3)) * 0.2
    random.shuffle(cloud)
    return cloud.astype(np.float32)
