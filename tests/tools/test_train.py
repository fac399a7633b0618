"""tools/train.py and tools/test.py from the command line, from another folder, also in parallel."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

CONFIG = """
custom_imports = dict(imports=['projects.cmt_aqr', 'toy_runner'])
default_scope = 'mmdet3d'
model = dict(type='ToyModel')
sampler = dict(type='DefaultSampler', shuffle=False)
loader = dict(dataset=dict(type='ToyDataset'), batch_size=2, sampler=sampler,
              collate_fn=dict(type='default_collate'))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='CountMetric')
train_cfg = dict(by_epoch=True, max_epochs=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01))
randomness = dict(seed=3)
custom_hooks = [dict(type='RunInfoHook')]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / 'toy.py').write_text(CONFIG)
    return tmp_path


@pytest.fixture
def run(folder, repo_root):
    """Run a tool in the folder of the toy config."""

    def run(tool: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
        program = [sys.executable] if tool.endswith('.py') else ['bash']
        answer = subprocess.run(
            [*program, str(repo_root / 'tools' / tool), *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(repo_root / 'tests'), 'PYTHON': sys.executable},
        )
        assert answer.returncode == expect, answer.stderr[-3000:]
        return answer

    return run


def run_infos(folder: Path) -> list[dict]:
    """The run_info.json of every run in the default work dir, oldest first."""
    files = sorted((folder / 'work_dirs' / 'toy').glob('*/run_info.json'))
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_train_resume_and_test(run, folder):
    run('train.py', 'toy.py')
    run('train.py', 'toy.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=3')
    assert (folder / 'work_dirs' / 'toy' / 'epoch_3.pth').is_file()

    run('test.py', 'toy.py', 'work_dirs/toy/epoch_3.pth', '--seed', '11')
    trained, resumed, tested = run_infos(folder)
    assert [score['iteration'] for score in trained['scores']] == [2, 4]
    assert [score['iteration'] for score in resumed['scores']] == [6]
    assert tested['scores'] == [{'phase': 'test', 'iteration': 0, 'count': 4.0}]
    assert (trained['seed'], tested['seed']) == (3, 11)
    assert tested['load_from'] == 'work_dirs/toy/epoch_3.pth'


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_not_scored(run, folder):
    torch.save(dict(state_dict={'line.bias': torch.zeros(1)}), folder / 'half.pth')
    assert 'line.weight' in run('test.py', 'toy.py', 'half.pth', expect=2).stderr
    assert run_infos(folder) == []


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason='two processes need two GPUs or none')
def test_two_processes_train_and_test_together(run, folder):
    run('dist_train.sh', 'toy.py', '2')
    run('dist_test.sh', 'toy.py', 'work_dirs/toy/epoch_2.pth', '2')
    trained, tested = run_infos(folder)
    assert trained['processes'] == tested['processes'] == 2
    # Four samples in batches of two, shared by two processes: one step an epoch.
    assert [score['iteration'] for score in trained['scores']] == [1, 2]
    assert tested['scores'][0]['count'] == 4


@pytest.fixture
def fail(folder, repo_root, monkeypatch, capsys):
    """The error message of a tool that ends before it builds anything, run in this process."""

    def fail(tool: str, *arguments: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path(str(repo_root / 'tools' / tool), run_name='__main__')
        assert exit_status.value.code == 2
        return capsys.readouterr().err

    return fail


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train.py', ['none.py'], 'config none.py does not exist'),
        ('train.py', ['toy.py', '--resume', 'none.pth'], 'checkpoint none.pth does not exist'),
        ('train.py', ['toy.py', '--auto-scale-lr'], 'needs auto_scale_lr.base_batch_size'),
        ('test.py', ['toy.py', 'none.pth'], 'checkpoint none.pth does not exist'),
    ],
)
def test_faults_are_one_line(fail, tool, arguments, message):
    (line,) = fail(tool, *arguments).splitlines()
    assert line.startswith(f'{tool}: ')
    assert message in line


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_float16_without_a_gpu_is_refused(fail):
    options = ['--amp', '--cfg-options', 'optim_wrapper.dtype=float16']
    assert '--amp in float16 needs a GPU' in fail('train.py', 'toy.py', *options)


@pytest.mark.parametrize('tool', ['dist_train.sh', 'dist_test.sh'])
def test_parallel_tools_say_how_they_are_used(run, tool):
    assert 'usage: ' in run(tool, expect=2).stderr


@pytest.mark.slow
def test_a_missing_feature_cache_is_one_line(fail, repo_root, synthetic_root, monkeypatch):
    """The data root is a variable, which changes every path that is computed from it."""
    # yapf takes longer to format the config than everything else.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))
    config = repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_cached.py'
    options = [
        f'data_root={synthetic_root}/',
        f'load_from={repo_root}/projects/cmt_aqr/weights/cmt_tiny_synthetic.pth',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    ]
    line = fail('train.py', str(config), '--cfg-options', *options).splitlines()[-1]
    assert line.startswith('train.py: work_dirs/features has no lidar features of these weights')
    assert '; to fill it: python tools/cache_features.py ' in line
