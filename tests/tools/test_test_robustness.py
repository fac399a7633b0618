"""Faults of the command line of tools/test_robustness.py, found before anything is built."""

import runpy
import sys

import pytest

CONFIG = 'configs/cmt/cmt_tiny_synthetic.py'
WEIGHTS = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'


@pytest.fixture
def fail(repo_root, synthetic_root, monkeypatch, capsys):
    """The one line with which the tool ends, on the tiny database."""

    def fail(*arguments: str, options: tuple[str, ...] = ()) -> str:
        data = f'test_dataloader.dataset.data_root={synthetic_root}'
        monkeypatch.chdir(repo_root)
        argv = ['test_robustness.py', *arguments, '--cfg-options', data, *options]
        monkeypatch.setattr(sys, 'argv', argv)
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path('tools/test_robustness.py', run_name='__main__')
        assert exit_status.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return fail


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('none.py', WEIGHTS), 'config none.py does not exist'),
        ((CONFIG, 'none.pth'), 'checkpoint none.pth does not exist'),
        ((CONFIG, WEIGHTS, '--model', 'b', CONFIG, 'b.pth'), 'checkpoint b.pth does not exist'),
        ((CONFIG, WEIGHTS, '--suite', 'mine'), "invalid choice: 'mine'"),
        ((CONFIG, WEIGHTS, '--conditions', 'fogg'), "no condition 'fogg'; it must be one of li"),
        ((CONFIG, WEIGHTS, '--conditions', 'fog_4'), 'did you mean fog_'),
        (
            (CONFIG, WEIGHTS, '--suite', 'mome', '--conditions', 'fog'),
            'one of beam_reduction, lidar_drop, limited_fov, object_failure, view_drop, occ',
        ),
        ((CONFIG, WEIGHTS, '--frames', '7'), '--frames: 7 frames asked for; it can be 1 to 6'),
        ((CONFIG, WEIGHTS, '--draws', '0'), '--draws 0: at least 1 is needed'),
        ((CONFIG, WEIGHTS, WEIGHTS), '2 models are called'),
        ((CONFIG, 'a/b.pth', '--model', 'b', CONFIG, WEIGHTS), '2 models are called b'),
    ],
)  # fmt: skip
def test_faults_are_one_line(fail, arguments, message):
    line = fail(*arguments)
    assert line.startswith('test_robustness.py: ')
    assert message in line


def test_models_must_be_tested_on_the_same_frames(fail, tmp_path, repo_root):
    other = tmp_path / 'other.py'
    other.write_text(
        f"_base_ = '{repo_root / CONFIG}'\n"
        "test_dataloader = dict(dataset=dict(ann_file='nuscenes_infos_train.pkl'))\n"
    )
    line = fail(CONFIG, WEIGHTS, '--model', 'other', str(other), WEIGHTS)
    assert 'other is tested on other frames than cmt_tiny_synthetic' in line


def test_loaders_that_apply_no_failure_are_refused(fail):
    plain = 'test_dataloader.dataset.pipeline.0.type=LoadPointsFromFile'
    assert 'loaders that apply no failure' in fail(CONFIG, WEIGHTS, options=(plain,))


@pytest.fixture
def short_names(repo_root):
    return runpy.run_path(str(repo_root / 'tools/test_robustness.py'))['short_names']


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['work/a/best.pth'], ['best']),
        (['work/a/epoch_1.pth', 'work/a/epoch_2.pth'], ['epoch_1', 'epoch_2']),
        (['work/a/epoch_1.pth', 'work/b/epoch_1.pth'], ['a/epoch_1', 'b/epoch_1']),
        (['one/a/x.pth', 'two/a/x.pth'], ['one/a/x', 'two/a/x']),
    ],
)
def test_models_are_named_after_their_files(short_names, paths, names):
    assert short_names(paths) == names
