"""What the SLURM scripts ask of a cluster, told by an `srun` that only writes it down."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def run(repo_root: Path, tmp_path: Path):
    """Run a script; the words that srun was called with, and MASTER_PORT before them."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$MASTER_PORT" "$@"\n')
    srun.chmod(0o755)

    def run(script: str, *arguments: str, **variables: str) -> list[str]:
        answer = subprocess.run(
            ['bash', str(repo_root / 'tools' / script), *arguments],
            capture_output=True,
            text=True,
            env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python3', **variables},
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.splitlines()

    return run


def test_training_on_one_node(run, repo_root):
    port, *words = run('slurm_train.sh', 'gpu', 'cmt', 'config.py', '--amp', '--seed', '0')
    assert port == '29500'
    assert words == [
        '--partition=gpu',
        '--job-name=cmt',
        '--gres=gpu:8',
        '--ntasks=8',
        '--ntasks-per-node=8',
        '--cpus-per-task=8',
        '--kill-on-bad-exit=1',
        'python3',
        '-u',
        f'{repo_root}/tools/train.py',
        'config.py',
        '--amp',
        '--seed',
        '0',
        '--launcher',
        'slurm',
    ]


@pytest.mark.parametrize(
    ('variables', 'expected'),
    [
        (dict(GPUS='2'), ['--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2']),
        (dict(GPUS='16'), ['--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']),
        (
            dict(GPUS='8', GPUS_PER_NODE='4', CPUS_PER_TASK='12', SRUN_ARGS='--time=9 --qos=low'),
            ['--gres=gpu:4', '--ntasks-per-node=4', '--cpus-per-task=12', '--time=9', '--qos=low'],
        ),
    ],
)
def test_what_is_asked_for_can_be_changed(run, variables, expected):
    words = run('slurm_train.sh', 'gpu', 'cmt', 'config.py', **variables)
    assert set(expected) <= set(words)


def test_a_checkpoint_is_scored(run, repo_root):
    port, *words = run('slurm_test.sh', 'gpu', 'cmt', 'config.py', 'best.pth', PORT='29600')
    assert port == '29600'
    assert words[-5:] == [
        f'{repo_root}/tools/test.py', 'config.py', 'best.pth', '--launcher', 'slurm',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [('slurm_train.sh', ['gpu', 'cmt']), ('slurm_test.sh', ['gpu', 'cmt', 'config.py'])],
)
def test_too_few_arguments_say_how_it_is_used(repo_root, script, arguments):
    answer = subprocess.run(
        ['bash', str(repo_root / 'tools' / script), *arguments], capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith('usage: ')
    assert 'PARTITION JOB_NAME CONFIG' in answer.stderr
