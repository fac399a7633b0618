"""tools/visualize.py from the command line: its pictures, and the errors it reports."""

import runpy
import sys

import cv2
import mmengine
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

CMT = 'configs/cmt/cmt_tiny_synthetic.py'
ROUTED = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'
MONITORED = 'configs/cmt/cmt_tiny_synthetic_health.py'
WRONG_SAMPLES = [
    (['--index', '6'], '--index must be 0 to 5, got 6'),
    (['--index', '-1'], '--index must be 0 to 5, got -1'),
    (['--token', 'x'], "samples of the test data have no token 'x'"),
]


@pytest.fixture(scope='module')
def checkpoint(repo_root, tmp_path_factory):
    """Random weights of the routed model."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(Config.fromfile(repo_root / ROUTED).model)
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


@pytest.fixture
def run(repo_root, synthetic_root, monkeypatch, capsys):
    """Run the tool in this process on the tiny database; returns what it prints."""

    def run(picture: str, *arguments: object, options: list[str] = ()) -> str:
        monkeypatch.chdir(repo_root)
        command = ['visualize.py', picture, *map(str, arguments)]
        if picture != 'frame':
            root = f'test_dataloader.dataset.data_root={synthetic_root}'
            command += ['--cfg-options', root, *options]
        monkeypatch.setattr(sys, 'argv', command)
        runpy.run_path('tools/visualize.py', run_name='__main__')
        return capsys.readouterr().out

    return run


def test_frame(run, synthetic_root, tmp_path):
    out = tmp_path / 'new' / 'frame.png'
    said = run('frame', synthetic_root, '--index', 11, '--out', out, '--width', 400)
    assert said == f'made {out}\n'
    assert cv2.imread(str(out)).shape[1] == 400


def test_browse_draws_what_the_model_is_fed(run, synthetic_root, tmp_path):
    """Each draw of a training sample in a file of its own, and a test sample under a failure."""
    root = f'train_dataloader.dataset.data_root={synthetic_root}'
    run('browse', CMT, '--index', 1, '--draws', 2, '--out', tmp_path / 'train', options=[root])
    first, second = (cv2.imread(str(file)) for file in sorted((tmp_path / 'train').iterdir()))
    assert first.shape == second.shape
    assert (first != second).mean() > 0.01
    failure = ('--split', 'test', '--failure', 'view_drop_1')
    run('browse', CMT, *failure, '--out', tmp_path / 'test')
    (picture,) = (tmp_path / 'test').iterdir()
    assert (cv2.imread(str(picture))[100:250, 50:500] == 0).mean() > 0.8  # black images


def test_failures_have_a_row_each(run, tmp_path):
    out = tmp_path / 'new' / 'sheet.png'
    said = run('failures', CMT, '--index', 1, '--suite', 'mome', '--out', out)
    assert said.splitlines()[-1] == f'made {out}'
    picture = cv2.imread(str(out))
    rows = 7  # the intact frame and six failures of one severity each
    assert 300 < picture.shape[0] / rows < 360
    assert picture.shape[1] < 1000


def test_router_has_a_picture_for_each_dropped_sensor(run, checkpoint, tmp_path):
    out = tmp_path / 'new'
    said = run('router', ROUTED, checkpoint, '--index', 5, '--out', out, '--score-threshold', 0.0)
    made = [out / f'aqr_weights_without_{sensor}.png' for sensor in ('lidar', 'camera')]
    assert said.splitlines()[-2:] == [f'made {file}' for file in made]
    assert set(out.iterdir()) == set(made)
    without_lidar, without_cameras = (cv2.imread(str(file)) for file in made)
    assert without_lidar.shape == without_cameras.shape
    width = without_lidar.shape[1] // 2
    assert (without_lidar[:, :width] == without_cameras[:, :width]).mean() > 0.9  # clean
    images = slice(45, 180)  # rows of the cameras
    dark, light = (picture[images, width:].mean() for picture in (without_cameras, without_lidar))
    assert dark < light - 30


def test_a_sample_by_its_token(run, synthetic_root, tmp_path):
    infos = mmengine.load(synthetic_root / 'nuscenes_infos_val.pkl')['data_list']
    files = [tmp_path / 'index.png', tmp_path / 'token.png']
    run('failures', CMT, '--suite', 'mome', '--index', 2, '--out', files[0])
    run('failures', CMT, '--suite', 'mome', '--token', infos[2]['token'], '--out', files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        (['frame', 'ROOT', '--index', '12'], '--index must be 0 to 11, got 12'),
        (['frame', 'ROOT', '--index', '-1'], '--index must be 0 to 11, got -1'),
        (['frame', 'ROOT', '--token', 'x'], "has no sample 'x'"),
        (
            ['frame', 'ROOT', '--version', 'v1.0-trainval'],
            'has no v1.0-trainval tables; its versions are: v1.0-mini',
        ),
        (['frame', 'ROOT', '--predictions', '/nowhere.json'], '/nowhere.json'),
        (['frame', '/nowhere'], 'make_synthetic_nuscenes.py --out /nowhere'),
        *((['failures', CMT, *options], message) for options, message in WRONG_SAMPLES),
        (
            ['failures', 'configs/cmt/cmt_lidar_voxel0075_cbgs.py'],
            "the test pipeline has no ['LoadMultiViewImages', 'ComputeLidar2Img']",
        ),
        (['browse', CMT, '--failure', 'fog_1'], '--failure needs --split test'),
        (['browse', CMT, '--split', 'test', '--index', '6'], '--index must be 0 to 5'),
        (['router', ROUTED, 'none.pth'], 'checkpoint none.pth does not exist'),
        (['router', CMT, 'CHECKPOINT'], 'has no router'),
        (['router', ROUTED, 'CHECKPOINT', '--token', 'x'], "have no token 'x'"),
        (
            ['router', ROUTED, 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'],
            'missing: pts_bbox_head.router.aqr_weight_generator',
        ),
    ],
)
def test_an_error_is_one_line(run, checkpoint, synthetic_root, tmp_path, capsys, command, message):
    stand_for = {'CHECKPOINT': checkpoint, 'ROOT': synthetic_root}
    with pytest.raises(SystemExit) as status:
        run(*[stand_for.get(word, word) for word in command], '--out', tmp_path / 'out.png')
    assert status.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('visualize.py: ')
    assert message in line
    assert not (tmp_path / 'out.png').exists()


def test_health_has_a_column_for_each_failure(run, repo_root, tmp_path):
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(Config.fromfile(repo_root / MONITORED).model)
    weights, out = tmp_path / 'random.pth', tmp_path / 'health.png'
    torch.save({'state_dict': model.state_dict()}, weights)
    said = run('health', MONITORED, weights, '--failures', 'view_drop', '--out', out)
    assert said.splitlines()[-1] == f'made {out}'
    assert cv2.imread(str(out)).shape[1] > 1300


def test_health_needs_a_monitor(run, checkpoint, capsys):
    with pytest.raises(SystemExit):
        run('health', ROUTED, checkpoint)
    assert 'has no health monitor' in capsys.readouterr().err
