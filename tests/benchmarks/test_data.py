"""Steps and samples of the data benchmark, on the real frame; no times are compared."""

import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from benchmarks import data
from benchmarks.processes import Measured
from projects.cmt_aqr.data_preparation.single_frame import make_frame_root

CONFIG = 'configs/cmt/cmt_voxel0100_r50_800x320_cbgs.py'
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def root(real_frame, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    frame = make_frame_root(real_frame, folder / 'frame')
    (folder / 'root').mkdir()
    data.make_root(frame, folder / 'root')
    return folder / 'root'


def test_inner_laps_do_not_count_for_the_outer_one():
    watch = data.NestedStopwatch(CPU)
    with watch.lap('outer'):
        for _ in range(2):
            with watch.lap('inner'):
                time.sleep(0.05)
        time.sleep(0.01)
    assert watch.laps['inner'] >= 0.1
    assert 0.01 <= watch.laps['outer'] < 0.1


def test_both_loaders_give_the_same_sample(root, repo_root):
    cfg = Config.fromfile(repo_root / CONFIG)
    ours, theirs = (
        data.build_dataset(cfg, str(root), split='test', loaders=loaders, paste=False)[0]['inputs']
        for loaders in (data.OURS, data.MMDET3D)
    )
    assert torch.equal(ours['points'], theirs['points'])
    assert len(ours['points']) > 300_000  # eleven clouds
    assert (ours['img'] - theirs['img']).abs().max() <= 0.5  # theirs is float32


def test_a_side_times_every_step_of_training(root, repo_root, monkeypatch):
    for module, name in ((data.mmdet3d_loading, 'get'), (data.own_loading, 'get')):
        monkeypatch.setattr(module, name, getattr(module, name))  # restores it
    monkeypatch.setattr(data.mmcv, 'imfrombytes', data.mmcv.imfrombytes)
    side = data.PipelineSide(
        str(repo_root / CONFIG),
        {'train_dataloader.batch_size': 1},
        str(root),
        device=CPU,
        split='train',
        loaders=data.OURS,
        paste=True,
    )
    times = side()
    steps = {*data.STEPS.values(), 'annotations', 'files', 'JPEG', 'scene augmentation'}
    steps |= {'collation', 'copy'}
    assert steps | {'sample'} == {name for name in times if not name.startswith('cpu/')}
    assert times['cpu/sample'] == pytest.approx(sum(times[f'cpu/{step}'] for step in steps))


def test_the_table():
    side = Measured([{'files': 0.01, 'sample': 0.15}], {'batch_size': 4}, 2 * 10**8)
    other = Measured([{'files': 0.02, 'copy': 0.1, 'sample': 0.3}], {'batch_size': 4}, 3 * 10**8)
    lines = data._table({'train': side, 'other': other}, 10.0).splitlines()
    assert lines[2:] == [
        '| files | 10.0 ms | 20.0 ms |',
        '| copy |  | 100.0 ms |',
        '| **sample** | 150.0 ms | 300.0 ms |',
        '| samples a second | 6.7 | 3.3 |',
        '| workers for 10 a second | 2 | 3 |',
        '| memory of a worker | 0.20 GB | 0.30 GB |',
    ]
