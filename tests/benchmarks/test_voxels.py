"""The table of voxelization, and that it needs torch alone."""

import argparse

import pytest
import torch
from torch_alone import run_with_torch_alone

from benchmarks import voxels
from projects.cmt_aqr.doctor.random_sample import random_cloud
from projects.cmt_aqr.usage_error import UsageError

CPU = torch.device('cpu')


def arguments(**changes):
    options = dict(points=[100, 2000], grid='r50', device=CPU, threads=1, rounds=2, warmup=0)
    return argparse.Namespace(**{**options, **changes})


def test_both_sides_are_timed_for_every_number_of_points():
    report = voxels.run(arguments())
    assert list(report.data['points']) == [100, 2000]
    for count, found in report.data['points'].items():
        assert 0 < found['voxels'] <= count
        assert list(found['seconds']) == [voxels.OURS, voxels.MMCV]
        assert [len(times) for times in report.data['runs'][count].values()] == [2, 2]
    assert report.markdown.splitlines()[2] == (
        '| points | voxels | this project | processor time | mmcv | processor time |'
    )


@pytest.mark.parametrize('grid', voxels.GRIDS)
def test_both_sides_give_the_same(grid):
    cloud = random_cloud(3000, voxels.GRIDS[grid]['point_cloud_range'])
    ours, mmcv = (side(cloud) for side in voxels.make_sides(voxels.GRIDS[grid], CPU).values())
    assert all(torch.equal(a, b) for a, b in zip(ours, mmcv, strict=True))


def test_no_points():
    with pytest.raises(UsageError, match='--points must be 1 or more, got 0'):
        voxels.run(arguments(points=[5, 0]))


def test_the_tool_runs_with_torch_alone(repo_root, tmp_path):
    options = [*('--points', 50), *('--rounds', 1), *('--warmup', 0), *('--threads', 1)]
    answer = run_with_torch_alone(
        ['tools/benchmark.py', 'voxels', '--device', 'cpu', *options],
        folder=tmp_path,
        cwd=repo_root,
    )
    assert 'mmcv.ops is not installed.' in answer.stdout
    assert '| points | voxels | this project | processor time |\n' in answer.stdout
