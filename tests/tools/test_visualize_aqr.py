"""tools/visualize_aqr.py from the command line: its pictures, and what it refuses."""

import runpy
import sys

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

CONFIG = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'


@pytest.fixture(scope='module')
def checkpoint(repo_root, tmp_path_factory):
    """Random weights of the model; the pictures need no good ones."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        from mmdet3d.registry import MODELS

        model = MODELS.build(Config.fromfile(repo_root / CONFIG).model)
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture
def run(repo_root, synthetic_root, monkeypatch):
    """Run the tool in this process on the tiny database, from the root of the checkout."""

    def run(*arguments: object) -> None:
        monkeypatch.chdir(repo_root)
        data = f'test_dataloader.dataset.data_root={synthetic_root}'
        command = ['visualize_aqr.py', *map(str, arguments), '--cfg-options', data]
        monkeypatch.setattr(sys, 'argv', command)
        runpy.run_path('tools/visualize_aqr.py', run_name='__main__')

    return run


def test_a_picture_for_each_dropped_sensor(run, checkpoint, tmp_path, capsys):
    out = tmp_path / 'new'
    run(CONFIG, checkpoint, '--index', 5, '--out', out, '--score-threshold', 0.0)
    made = [out / f'aqr_weights_without_{sensor}.png' for sensor in ('lidar', 'camera')]
    assert capsys.readouterr().out.splitlines()[-2:] == [f'made {file}' for file in made]
    assert set(out.iterdir()) == set(made)
    without_lidar, without_cameras = (cv2.imread(str(file)) for file in made)
    assert without_lidar.shape == without_cameras.shape
    width = without_lidar.shape[1] // 2
    assert (without_lidar[:, :width] == without_cameras[:, :width]).mean() > 0.9  # clean
    images = slice(45, 180)  # rows of the cameras
    dark, light = (picture[images, width:].mean() for picture in (without_cameras, without_lidar))
    assert dark < light - 30


def test_a_sample_by_its_token(run, checkpoint, synthetic_root, tmp_path):
    import mmengine

    infos = mmengine.load(synthetic_root / 'nuscenes_infos_val.pkl')['data_list']
    options = ['--drop', 'lidar', '--out']
    run(CONFIG, checkpoint, '--index', 2, *options, tmp_path / 'index')
    run(CONFIG, checkpoint, '--token', infos[2]['token'], *options, tmp_path / 'token')
    first, second = (
        (tmp_path / name / 'aqr_weights_without_lidar.png').read_bytes()
        for name in ('index', 'token')
    )
    assert first == second


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([CONFIG, 'none.pth'], 'checkpoint none.pth does not exist'),
        (['configs/cmt/cmt_tiny_synthetic.py', 'CHECKPOINT'], 'has no router'),
        ([CONFIG, 'CHECKPOINT', '--index', '6'], '--index must be 0 to 5, got 6'),
        ([CONFIG, 'CHECKPOINT', '--index', '-1'], '--index must be 0 to 5, got -1'),
        ([CONFIG, 'CHECKPOINT', '--token', 'x'], "samples of the test data have no token 'x'"),
        (
            [CONFIG, 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'],
            'missing keys in source state_dict: pts_bbox_head.router.aqr_weight_generator',
        ),
    ],
)
def test_what_is_refused_is_one_line(run, checkpoint, tmp_path, capsys, arguments, message):
    given = [checkpoint if argument == 'CHECKPOINT' else argument for argument in arguments]
    with pytest.raises(SystemExit) as status:
        run(*given, '--out', tmp_path / 'out')
    assert status.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('visualize_aqr.py: ')
    assert message in line
    assert not (tmp_path / 'out').exists()
