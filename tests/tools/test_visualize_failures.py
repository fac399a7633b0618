"""tools/visualize_failures.py from the command line: its sheet, and what it refuses."""

import runpy
import sys

import cv2
import mmengine
import pytest

CONFIG = 'configs/cmt/cmt_tiny_synthetic.py'


@pytest.fixture
def run(repo_root, synthetic_root, monkeypatch):
    """Run the tool in this process on the tiny database, from the root of the checkout."""

    def run(*arguments: object) -> None:
        monkeypatch.chdir(repo_root)
        data = f'test_dataloader.dataset.data_root={synthetic_root}'
        command = ['visualize_failures.py', *map(str, arguments), '--cfg-options', data]
        monkeypatch.setattr(sys, 'argv', command)
        runpy.run_path('tools/visualize_failures.py', run_name='__main__')

    return run


def test_a_row_for_each_failure(run, tmp_path, capsys):
    out = tmp_path / 'new' / 'sheet.png'
    run(CONFIG, '--index', 1, '--suite', 'mome', '--out', out)
    assert capsys.readouterr().out.splitlines()[-1] == f'made {out}'
    picture = cv2.imread(str(out))
    rows = 7  # the frame as it is and six failures, of one severity each
    assert 300 < picture.shape[0] / rows < 360
    assert picture.shape[1] < 1000


def test_a_sample_by_its_token(run, synthetic_root, tmp_path):
    infos = mmengine.load(synthetic_root / 'nuscenes_infos_val.pkl')['data_list']
    files = [tmp_path / 'index.png', tmp_path / 'token.png']
    run(CONFIG, '--suite', 'mome', '--index', 2, '--out', files[0])
    run(CONFIG, '--suite', 'mome', '--token', infos[2]['token'], '--out', files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([CONFIG, '--index', '6'], '--index must be 0 to 5, got 6'),
        ([CONFIG, '--token', 'x'], "samples of the test data have no token 'x'"),
        (
            ['configs/cmt/cmt_lidar_voxel0075_cbgs.py'],
            "the test pipeline has no ['LoadMultiViewImages', 'ComputeLidar2Img']",
        ),
    ],
)
def test_what_is_refused_is_one_line(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as status:
        run(*arguments, '--out', tmp_path / 'out.png')
    assert status.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('visualize_failures.py: ')
    assert message in line
    assert not (tmp_path / 'out.png').exists()
