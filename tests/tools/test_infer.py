"""tools/infer.py from the command line: its files, and the line about each mistake."""

import json
import runpy
import sys

import cv2
import imageio.v3 as imageio
import pytest

MODEL = 'cmt_tiny_synthetic'


@pytest.fixture
def run(repo_root, synthetic_root, monkeypatch, capsys):
    """Run the tool in this process; INFOS stands for an info file. Returns what it prints."""

    def run(*arguments: object) -> str:
        monkeypatch.chdir(repo_root)
        infos = synthetic_root / 'nuscenes_infos_val.pkl'
        words = [infos if word == 'INFOS' else word for word in arguments]
        monkeypatch.setattr(sys, 'argv', ['infer.py', *map(str, words), '--device', 'cpu'])
        runpy.run_path('tools/infer.py', run_name='__main__')
        return capsys.readouterr().out

    return run


def test_a_frame_under_a_failure(run, tmp_path):
    out = tmp_path / 'new'
    said = run(MODEL, 'INFOS', '--index', 1, '--failure', 'lidar_drop_1', '--out', out)
    data, picture = sorted(out.iterdir())
    assert said.splitlines()[-2:] == [f'made {data}', f'made {picture}']
    content = json.loads(data.read_text())
    assert content['units']['velocity'] == 'm/s'
    sound, damaged = content['frames']
    assert (sound['failure'], damaged['failure']) == (None, 'lidar_drop_1')
    assert damaged['damage'].endswith(' → 0')
    assert len(sound['boxes']) - len(damaged['gone']) == len(damaged['boxes']) - len(damaged['new'])
    assert all(box['score'] >= 0.3 for box in sound['boxes'])
    assert cv2.imread(str(picture)).shape[1] == 2400


def test_a_scene_is_a_movie(run, tmp_path, monkeypatch):
    monkeypatch.setattr('projects.cmt_aqr.cli.infer.MOVIE_WIDTH', 300)
    run(MODEL, 'INFOS', '--scene', 'scene-0916', '--no-ground-truth', '--out', tmp_path)
    content = json.loads((tmp_path / 'scene-0916.json').read_text())
    frames = imageio.imread(tmp_path / 'scene-0916.gif')
    assert len(content['frames']) == len(frames) == 3
    assert frames.shape[2] == 300


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['cmt_tiny_syntetic', 'INFOS'], 'did you mean cmt_tiny_synthetic?'),
        ([MODEL, '/nowhere'], '/nowhere does not exist'),
        ([MODEL, 'INFOS', '--index', 6], 'index must be 0 to 5'),
        ([MODEL, 'INFOS', '--scene', 'scene-916'], 'did you mean scene-0916?'),
        ([MODEL, 'INFOS', '--failure', 'lidar_dorp_1'], 'did you mean lidar_drop'),
        ([MODEL, 'INFOS', '--failure', 'fog_4'], "no condition 'fog_4'"),
        ([MODEL, 'INFOS', '--checkpoint', 'none.pth'], 'checkpoint none.pth does not exist'),
        (['configs/cmt/cmt_tiny_synthetic.py', 'INFOS'], 'needs a checkpoint'),
    ],
)
def test_a_mistake_is_one_line(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as status:
        run(*arguments, '--out', tmp_path / 'out')
    assert status.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('infer.py: ')
    assert message in line
    assert not (tmp_path / 'out').exists()
