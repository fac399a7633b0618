"""tools/gpu_check.sh: all parts run, whatever happens to one of them, and in under ten minutes."""

import os
import re
import subprocess

import pytest

STAND_IN = """#!/bin/sh
echo "$@"
case "$*" in *'{failing}'*) exit 3;; esac
"""


@pytest.fixture
def check(repo_root, tmp_path):
    """Run the script with a stand-in for Python, which fails in one part, and for nvidia-smi."""

    def run(failing):
        for name in ('python', 'nvidia-smi'):
            (tmp_path / name).write_text(STAND_IN.format(failing=failing))
            (tmp_path / name).chmod(0o755)
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        answer = subprocess.run(
            [repo_root / 'tools/gpu_check.sh', tmp_path / 'out'],
            env={**os.environ, 'PYTHON': str(tmp_path / 'python'), 'PATH': path},
            capture_output=True,
            text=True,
        )
        return answer, tmp_path / 'out'

    return run


def test_all_parts_run_and_leave_their_output(check):
    answer, out = check('nothing')
    assert answer.returncode == 0
    summary = (out / 'summary.txt').read_text().splitlines()
    assert [line.partition(':')[0] for line in summary] == [
        'machine',
        'doctor',
        *(f'attention_{s}_{d}' for s in ('r50', 'vov') for d in ('float32', 'bfloat16')),
        'voxels',
    ]
    assert '--torch-only' in (out / 'doctor.txt').read_text()
    assert '--sizes vov --dtype bfloat16' in (out / 'attention_vov_bfloat16.txt').read_text()


@pytest.mark.parametrize(
    ('failing', 'part'), [('doctor.py', 'doctor'), ('--dtype float32', 'float32')]
)
def test_a_part_that_fails_does_not_stop_the_others(check, failing, part):
    answer, out = check(failing)
    assert answer.returncode == 1
    summary = (out / 'summary.txt').read_text().splitlines()
    assert len(summary) == 7
    failed = [line for line in summary if 'status 3' in line]
    assert failed
    assert all(part in line for line in failed)


def test_the_parts_end_within_ten_minutes(repo_root):
    text = (repo_root / 'tools/gpu_check.sh').read_text()
    seconds = [int(number) for number in re.findall(r'^ *part \S+ (\d+) ', text, re.MULTILINE)]
    assert len(seconds) == 4
    machine, doctor, attention, voxels = seconds
    kill_after = 5 * 7
    assert machine + doctor + 4 * attention + voxels + kill_after < 600


def test_a_folder_must_be_named(repo_root):
    answer = subprocess.run([repo_root / 'tools/gpu_check.sh'], capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr.startswith('usage: ')
