"""The table of voxelization, and that it needs torch alone."""

import argparse
import subprocess
import sys

import pytest
import torch

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
    cloud = random_cloud(3000, torch.tensor(voxels.GRIDS[grid]['point_cloud_range']))
    ours, mmcv = (side(cloud) for side in voxels.make_sides(voxels.GRIDS[grid], CPU).values())
    assert all(torch.equal(a, b) for a, b in zip(ours, mmcv, strict=True))


def test_no_points():
    with pytest.raises(UsageError, match='--points must be 1 or more, got 0'):
        voxels.run(arguments(points=[5, 0]))


def test_the_tool_runs_with_torch_alone(repo_root):
    code = """
import importlib.util, runpy, sys
absent = ('mmcv', 'mmdet', 'mmdet3d', 'mmengine', 'spconv')
installed = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in absent else installed(name)
sys.modules.update(dict.fromkeys(absent))  # importing one of them now fails
sys.argv[1:] = 'voxels --points 50 --rounds 1 --warmup 0 --device cpu --threads 1'.split()
sys.path.insert(0, 'tools')
runpy.run_path('tools/benchmark.py', run_name='__main__')
"""
    answer = subprocess.run(
        [sys.executable, '-c', code], check=True, cwd=repo_root, capture_output=True, text=True
    )
    assert 'mmcv.ops is not installed.' in answer.stdout
    assert '| points | voxels | this project | processor time |\n' in answer.stdout
