"""Cost of voxelization: this project's voxelizer and mmcv's operator, by number of points.

mmcv is left out if it or its compiled operators are not installed; the other side needs torch
alone.
"""

import argparse
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from projects.cmt_aqr.cli.entry import number
from projects.cmt_aqr.doctor.random_sample import random_cloud
from projects.cmt_aqr.markdown import duration, table
from projects.cmt_aqr.usage_error import UsageError
from projects.cmt_aqr.voxelize import Voxelizer

from .report import Report, procedure, spread
from .timing import Stopwatch, Times, alternate, summarize, work

_LIMITS = {'max_num_points': 10, 'max_voxels': 160_000}
_RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
GRIDS = {
    'r50': dict(_LIMITS, voxel_size=[0.1, 0.1, 0.2], point_cloud_range=_RANGE),
    'vov': dict(_LIMITS, voxel_size=[0.075, 0.075, 0.2], point_cloud_range=_RANGE),
}
OURS, MMCV = 'this project', 'mmcv'


class VoxelizeStep:
    """A side that voxelizes one cloud."""

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
    """Add the options of this benchmark."""
    parser.add_argument(
        '--points', type=number(int, 1), nargs='+', default=[15_000, 100_000, 300_000]
    )
    parser.add_argument(
        '--grid', choices=GRIDS, default='r50', help='model whose voxel size is used'
    )


def run(args: argparse.Namespace) -> Report:
    """Time both sides for each number of points.

    Raises:
        UsageError: a number of points is less than 1.
    """
    if min(args.points) < 1:
        raise UsageError(f'--points must be 1 or more, got {min(args.points)}')
    torch.set_num_threads(args.threads)
    sides = make_sides(GRIDS[args.grid], args.device)
    limits = GRIDS[args.grid]['point_cloud_range']
    results, runs = {}, {}
    for count in args.points:
        cloud = random_cloud(count, limits).to(args.device)
        steps = {name: VoxelizeStep(voxelize, cloud) for name, voxelize in sides.items()}
        runs[count] = alternate(steps, rounds=args.rounds, warmup=args.warmup)
        results[count] = {
            'voxels': len(sides[OURS](cloud)[0]),
            'seconds': {name: summarize(times) for name, times in runs[count].items()},
        }
    absent = '' if MMCV in sides else ' mmcv.ops is not installed.'
    introduction = f'Random clouds on the grid of {args.grid}. {procedure(args)}{absent}'
    return Report(
        markdown=f'{introduction}\n\n{_table(results, list(sides))}',
        data={'points': results, 'runs': runs},
    )


def make_sides(grid: dict, device: torch.device) -> dict[str, Callable[[Tensor], tuple]]:
    """The installed voxelizers; each returns voxels, their cells, and their numbers of points."""
    ours = Voxelizer(**grid).to(device).eval()

    def voxelize(cloud: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = ours([cloud])
        return out['voxels'], out['coors'][:, 1:], out['num_points']

    try:
        from mmcv.ops import Voxelization
    except ImportError:
        return {OURS: voxelize}
    return {OURS: voxelize, MMCV: Voxelization(**grid).eval()}


def _table(results: Mapping[int, dict], sides: list[str]) -> str:
    head = ['points', 'voxels']
    for side in sides:
        head += [side, 'processor time']  # on a GPU equal to the time
    rows = []
    for count, found in results.items():
        row = [f'{count:,}', f'{found["voxels"]:,}']
        for seconds in found['seconds'].values():
            row += [spread(seconds['voxels']), duration(work(seconds)['voxels'].median)]
        rows.append(row)
    return table(head, rows)
