"""What a command shows on the screen, and what only its log has."""

import contextlib
import logging
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.logging import MMLogger, print_log
from mmengine.utils import track_iter_progress

from projects.cmt_aqr.cli import screen

REPO_ROOT = Path(__file__).resolve().parents[2]
SPEECH = """
print('printed')
warnings.warn('warned')
logging.getLogger('lib').warning('logged')
print_log('told', logger='current', level=logging.WARNING)
print_log('bare')
"""
TOY = """
custom_imports = dict(imports=['projects.cmt_aqr', 'toy_runner'], allow_failed_imports=False)
default_scope = 'mmdet3d'
model = dict(type='ToyModel')
loader = dict(dataset=dict(type='ToyDataset'), batch_size=2, num_workers=0,
              sampler=dict(type='DefaultSampler', shuffle=False),
              collate_fn=dict(type='default_collate'))
train_dataloader = val_dataloader = loader
val_evaluator = dict(type='CountMetric')
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))
"""


def speak(folder: str) -> None:
    """Run the code above as a module in that folder."""
    names = dict(logging=logging, warnings=warnings, print_log=print_log, __name__='lib')
    exec(compile(SPEECH, f'{folder}/lib.py', 'exec'), names)


@contextlib.contextmanager
def quiet_run(file: Path) -> Iterator[None]:
    """A quiet screen, and a logger with a file that is made then."""
    with screen.quiet():
        logger = MMLogger.get_instance(f'{file}', log_file=str(file))
        yield
        del MMLogger._instance_dict[logger.instance_name]


def test_libraries_speak_to_the_log_and_users_to_the_screen(tmp_path, capsys):
    log = tmp_path / 'run.log'
    with quiet_run(log):
        speak('/venv/lib/site-packages')
        assert capsys.readouterr() == ('', '')
        for word in ('printed', 'warned', 'logged', 'told', 'bare'):
            assert log.read_text().count(word) == 1, word

        speak('/home/user')
        out, err = capsys.readouterr()
        assert out.splitlines() == ['printed', 'WARNING: told', 'bare']
        assert 'WARNING: warned' in err
        print_log('detail', logger='current')
        assert capsys.readouterr().out == ''
        assert 'detail' in log.read_text()


def test_errors_of_libraries_are_shown(tmp_path, capsys):
    code = "print_log('broken', logger='current', level=logging.ERROR)"
    names = dict(logging=logging, print_log=print_log, __name__='lib')
    with quiet_run(tmp_path / 'run.log'):
        exec(compile(code, '/venv/lib/site-packages/lib.py', 'exec'), names)
    assert capsys.readouterr().out == 'ERROR: broken\n'


def test_everything_is_as_before_after_the_block(capsys):
    before = (sys.stdout, warnings.showwarning, logging.Logger.callHandlers, MMLogger.callHandlers)
    with screen.quiet():
        assert screen.is_quiet()
        assert [*track_iter_progress([1, 2])] == [1, 2]
    assert not screen.is_quiet()
    assert before == (
        sys.stdout,
        warnings.showwarning,
        logging.Logger.callHandlers,
        MMLogger.callHandlers,
    )
    assert capsys.readouterr() == ('', '')  # no bar without a terminal


@pytest.mark.parametrize('verbose', [False, True])
def test_a_training_fits_the_screen(verbose, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('toy.py').write_text(TOY)
    monkeypatch.setattr(sys, 'argv', ['train.py', 'toy.py', *['--verbose'] * verbose])
    runpy.run_path(str(REPO_ROOT / 'tools/train.py'), run_name='__main__')
    lines = ''.join(capsys.readouterr()).splitlines()
    folder = tmp_path / 'work_dirs/toy'
    (log,) = folder.glob('*/*.log')
    assert 'Hooks will be executed in the following order' in log.read_text()
    assert any('Hooks will be executed' in line for line in lines) == verbose
    if not verbose:
        assert lines[0] == f'toy.py; log: {log}'
        assert lines[1] == '4 steps in 2 epochs; 2 of 2 parameters train'
        assert [line.split(':')[0] for line in lines[2:4]] == ['epoch 1', 'epoch 2']
        assert lines[4].startswith('trained in 0:00:0')
        assert lines[4].endswith(
            '; checkpoint: ' + str(Path('work_dirs/toy/epoch_2.pth').resolve())
        )
        assert len(lines) == 5
