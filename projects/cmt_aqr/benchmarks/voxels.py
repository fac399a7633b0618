"""Cost of voxelization: this project's voxelizer beside mmcv's operator, by number of points.

mmcv's side is left out where mmcv or its compiled operators are not installed; this project's side
needs torch alone.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from ..usage_error import UsageError
from ..voxelize import Voxelizer
from .clouds import random_cloud
from .report import Report, duration, spread, table
from .timing import Stopwatch, Times, alternate, summarize, work

_LIMITS = {'max_num_points': 10, 'max_voxels': 160_000}
_RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
GRIDS = {
    'r50': dict(_LIMITS, voxel_size=[0.1, 0.1, 0.2], point_cloud_range=_RANGE),
    'vov': dict(_LIMITS, voxel_size=[0.075, 0.075, 0.2], point_cloud_range=_RANGE),
}
OURS, MMCV = 'this project', 'mmcv'


class VoxelizeStep:
    """Voxelizes one cloud; a side of a comparison."""

    def __init__(self, voxelize: Callable[[Tensor], object], cloud: Tensor) -> None:
        self.voxelize = voxelize
        self.cloud = cloud
        self.watch = Stopwatch(cloud.device)

    def __call__(self) -> Times:
        """Seconds of ``voxels``."""
        self.watch.reset()
        with self.watch.lap('voxels'):
            self.voxelize(self.cloud)
        return self.watch.times(dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's own arguments."""
    parser.add_argument('--points', type=int, nargs='+', default=[15_000, 100_000, 300_000])
    parser.add_argument('--grid', choices=GRIDS, default='r50', help='voxels of this model')


def run(args: argparse.Namespace) -> Report:
    """Time both sides in turn, for one number of points after another.

    Raises:
        UsageError: fewer than one point.
    """
    if min(args.points) < 1:
        raise UsageError(f'--points must be 1 or more, got {min(args.points)}')
    torch.set_num_threads(args.threads)
    sides = make_sides(GRIDS[args.grid], args.device)
    limits = torch.tensor(GRIDS[args.grid]['point_cloud_range'])
    results, runs = {}, {}
    for count in args.points:
        cloud = random_cloud(count, limits).to(args.device)
        steps = {name: VoxelizeStep(voxelize, cloud) for name, voxelize in sides.items()}
        runs[count] = alternate(steps, rounds=args.rounds, warmup=args.warmup)
        results[count] = {
            'voxels': len(sides[OURS](cloud)[0]),
            'seconds': {name: summarize(times) for name, times in runs[count].items()},
        }
    data = {
        'grid': args.grid,
        'rounds': args.rounds,
        'warmup': args.warmup,
        'points': results,
        'runs': runs,
    }
    return Report(markdown=_markdown(data, list(sides)), data=data)


def make_sides(grid: dict, device: torch.device) -> dict[str, Callable[[Tensor], tuple]]:
    """The voxelizers that are installed; each returns voxels, cells and numbers of points."""
    ours = Voxelizer(**grid).to(device).eval()

    def voxelize(cloud: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = ours([cloud])
        return out['voxels'], out['coors'][:, 1:], out['num_points']

    try:
        from mmcv.ops import Voxelization
    except ImportError:
        return {OURS: voxelize}
    return {OURS: voxelize, MMCV: Voxelization(**grid).eval()}


def _markdown(data: dict, sides: list[str]) -> str:
    head = ['points', 'voxels']
    for side in sides:
        head += [side, 'processor time']  # that of the GPU is the time itself
    rows = []
    for count, found in data['points'].items():
        row = [f'{count:,}', f'{found["voxels"]:,}']
        for seconds in found['seconds'].values():
            row += [spread(seconds['voxels']), duration(work(seconds)['voxels'].median)]
        rows.append(row)
    absent = '' if MMCV in sides else ' mmcv.ops is not installed.'
    return (
        f'One cloud of random points on the grid of {data["grid"]}. Medians (lowest–highest) of '
        f'{data["rounds"]} rounds after {data["warmup"]} to warm up, sides in turn.{absent}\n\n'
        + table(head, rows)
    )
