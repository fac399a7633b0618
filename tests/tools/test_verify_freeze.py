"""tools/verify_freeze.py: what it prints and writes, and the status it ends with."""

import json
import runpy
import sys

import pytest

CONFIG = 'configs/cmt/cmt_tiny_synthetic_finetune.py'


@pytest.fixture
def run(repo_root, monkeypatch, capsys):
    """Run the tool in this process, from the root of the checkout: its output and errors."""

    def run(*arguments: str, expect: int) -> tuple[str, str]:
        monkeypatch.chdir(repo_root)
        monkeypatch.setattr(sys, 'argv', ['verify_freeze.py', *arguments])
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path('tools/verify_freeze.py', run_name='__main__')
        captured = capsys.readouterr()
        assert exit_status.value.code == expect, captured.err
        return captured.out, captured.err

    return run


def options(**settings: object) -> list[str]:
    return ['--cfg-options', *(f'{name}={value}' for name, value in settings.items())]


def test_all_is_well(run, tmp_path):
    out, err = run(CONFIG, '--epoch-length', '20', '--json', str(tmp_path / 'out.json'), expect=0)
    assert 'an epoch has 20 iterations, as given' in out
    assert 'frozen tensors that a checkpoint filled:' in out
    assert out.splitlines()[-1] == 'nothing is wrong'
    assert 'violat' not in err
    report = json.loads((tmp_path / 'out.json').read_text())
    assert (report['config'], report['epoch_length']) == (CONFIG, 20)
    assert report['checkpoint'] == 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
    assert (report['state'], report['violations']) == ('passed', [])


def test_violations_are_listed_with_their_remedies(run, tmp_path):
    file = tmp_path / 'out.json'
    arguments = ['--epoch-length', '20', '--json', str(file), *options(load_from='None')]
    out, err = run(CONFIG, *arguments, expect=1)
    assert f'{CONFIG} with no checkpoint' in out
    assert 'frozen tensors that no checkpoint filled (210)' in err
    assert 'remedy: set load_from' in err
    report = json.loads(file.read_text())
    assert report['state'] == 'violated'
    assert len(report['unfilled']) == 210


def test_what_is_refused_is_one_line(run, tmp_path):
    file = tmp_path / 'out.json'
    wrong = options(**{'model.pts_backbone.frozen_stages': 4, 'model.pts_backbone.frozen': False})
    _, err = run(CONFIG, '--epoch-length', '20', '--json', str(file), *wrong, expect=1)
    line = err.splitlines()[-1]
    assert line.startswith(f'verify_freeze.py: {CONFIG} is refused: pts_backbone (SECOND): ')
    report = json.loads(file.read_text())
    assert report['state'] == 'refused'
    assert report['error'] in line


def test_checkpoint_of_the_command_line_comes_first(run, repo_root):
    checkpoint = str(repo_root / 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth')
    out, _ = run(CONFIG, checkpoint, '--epoch-length', '20', expect=0)
    assert f'{CONFIG} with {checkpoint}' in out


def test_epoch_is_as_long_as_the_data(run, synthetic_root):
    """Six training samples in batches of two."""
    changes = {
        'train_dataloader.dataset.data_root': synthetic_root,
        'train_dataloader.batch_size': 2,
    }
    out, _ = run(CONFIG, *options(**changes), expect=0)
    assert 'an epoch has 3 iterations, as one process makes of the training data' in out


def test_length_of_an_epoch_without_data_is_assumed_and_said(run, tmp_path):
    out, _ = run(CONFIG, *options(**{'train_dataloader.dataset.data_root': tmp_path}), expect=0)
    assert 'an epoch has 1000 iterations, assumed' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.py'], 'config none.py does not exist'),
        ([CONFIG, 'none.pth'], 'checkpoint none.pth does not exist'),
        ([CONFIG, '--epoch-length', '0'], '--epoch-length is 0; it must be 1 or greater'),
        ([CONFIG, '--json', 'none/out.json'], '--json: the folder none does not exist'),
        (
            [CONFIG, *options(train_cfg='None', optim_wrapper='None')],
            f'config {CONFIG} trains nothing: it has no optim_wrapper, train_cfg',
        ),
    ],
)
def test_faults_of_the_command_are_one_line(run, arguments, message):
    _, err = run(*arguments, expect=2)
    assert err.splitlines()[-1].startswith(f'verify_freeze.py: {message}')
