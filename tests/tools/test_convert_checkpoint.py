"""tools/convert_checkpoint.py: what it writes and prints, and what it refuses."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

CONFIG = 'configs/cmt/cmt_tiny_synthetic.py'
SHIPPED = Path('projects/cmt_aqr/weights/cmt_tiny_synthetic.pth')


@pytest.fixture
def run(repo_root, monkeypatch, capsys):
    """Run the tool in this process, from the root of the checkout: its output and errors."""

    def run(*arguments: object, expect: int = 0) -> tuple[str, str]:
        monkeypatch.chdir(repo_root)
        command = ['convert_checkpoint.py', *map(str, arguments)]
        monkeypatch.setattr(sys, 'argv', command)
        status = 0
        try:
            runpy.run_path('tools/convert_checkpoint.py', run_name='__main__')
        except SystemExit as stopped:
            status = stopped.code
        captured = capsys.readouterr()
        assert status == expect, captured.err
        return captured.out, captured.err

    return run


def test_what_is_written_and_printed(run, repo_root, tmp_path):
    out = tmp_path / 'converted.pth'
    text, _ = run(SHIPPED, CONFIG, '--out', out)
    before = torch.load(repo_root / SHIPPED, weights_only=True)['state_dict']
    after = torch.load(out, weights_only=True)['state_dict']
    assert list(after) == list(before)
    assert all(torch.equal(after[n], v.to(after[n].dtype)) for n, v in before.items())
    lines = text.splitlines()
    assert lines[0] == f"{SHIPPED}: under 'state_dict', beside it unread: meta"
    assert lines[1] == 'layout of CMT'
    assert 'tensors from float16 to float32' in lines[3]
    assert lines[-1].startswith(f'{out}: {len(before)} tensors, ')


def test_options_of_the_config_count(run, tmp_path):
    out = tmp_path / 'converted.pth'
    fewer = 'model.pts_bbox_head.num_query=60'
    _, err = run(SHIPPED, CONFIG, '--out', out, '--cfg-options', fewer, expect=2)
    assert f'{SHIPPED}: the file does not fit the model of the config:' in err
    assert 'reference_points.weight (120, 3), in the model (60, 3)' in err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('source', 'config', 'out', 'message'),
    [
        ('absent.pth', CONFIG, 'o.pth', 'source absent.pth does not exist (in '),
        (SHIPPED, 'configs/cmt/cmt_tiny_synthetik.py', 'o.pth', f'did you mean {CONFIG}?'),
        (SHIPPED, CONFIG, 'no/o.pth', '/no does not exist'),
        (SHIPPED, CONFIG, '', 'is a folder; name a file'),
        (SHIPPED, 'configs/_base_/default_runtime.py', 'o.pth', 'default_runtime.py has no model'),
        ('README.md', CONFIG, 'o.pth', 'README.md cannot be read as a PyTorch checkpoint'),
    ],
)
def test_wrong_arguments(run, tmp_path, source, config, out, message):
    _, err = run(source, config, '--out', tmp_path / out, expect=2)
    assert message in err
    assert not any(tmp_path.iterdir())


def test_the_source_is_not_written_over(run, repo_root, tmp_path):
    source = tmp_path / 'weights.pth'
    source.write_bytes((repo_root / SHIPPED).read_bytes())
    _, err = run(source, CONFIG, '--out', source, expect=2)
    assert '--out: this is the source itself; name another file' in err
    assert source.read_bytes() == (repo_root / SHIPPED).read_bytes()
