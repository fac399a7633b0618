"""tools/doctor.py from the command line, and on a machine with torch alone."""

import json
import runpy

import pytest
import torch
from torch_alone import run_with_torch_alone

from projects.cmt_aqr.doctor import checks
from projects.cmt_aqr.doctor.result import Comparison, Result
from projects.cmt_aqr.doctor.running import Check

TORCH_ONLY = {'versions', 'device', 'voxels', 'processes'}
CPU = torch.device('cpu')


@pytest.fixture
def main(repo_root):
    return runpy.run_path(str(repo_root / 'tools/doctor.py'))['main']


@pytest.mark.parametrize('wrong', [False, True])
def test_the_exit_status_is_1_where_a_check_fails(main, wrong, monkeypatch, capsys, tmp_path):
    results = [
        Result(what='right', comparisons=[Comparison('x', 0.0, 0.1)]),
        Result(what='perhaps', comparisons=[Comparison('y', 0.2 if wrong else 0.05, 0.1)]),
    ]
    found = [Check(result.what, lambda device, result=result: result) for result in results]
    monkeypatch.setattr(checks, 'checks_of', lambda device, torch_only: found)
    file = tmp_path / 'new' / 'doctor.json'
    assert main(['--device', 'cpu', '--json', str(file)]) == int(wrong)
    assert ('FAILED' in capsys.readouterr().out) == wrong
    data = json.loads(file.read_text())
    assert [line['verdict'] for line in data] == ['ok', 'FAILED' if wrong else 'ok']
    assert data[0]['result']['comparisons'] == [{'name': 'x', 'error': 0.0, 'allowed': 0.1}]


def test_what_needs_the_stack_is_left_out_with_torch_alone():
    names = [{c.name for c in checks.checks_of(CPU, torch_only=only)} for only in (True, False)]
    assert {name.partition(',')[0] for name in names[0]} == TORCH_ONLY | {'attention', 'decoder'}
    assert names[0] < names[1]


def test_a_gpu_is_also_checked_in_half_precision_at_the_sizes_of_released_models():
    found = [c.name for c in checks.checks_of(torch.device('cuda'), torch_only=False)]
    assert found.count('attention, vov') == 3
    assert found.count('sparse convolution') == 4


RUN_SOME = """
import runpy, sys
sys.path.insert(0, 'tools')
tool = runpy.run_path('tools/doctor.py')
tool['import_package'](torch_only={torch_only})
from projects.cmt_aqr.doctor import checks
all_checks = checks.checks_of
checks.checks_of = lambda *args, **options: [
    check for check in all_checks(*args, **options) if check.name in {names}
]
sys.exit(tool['main']({arguments}))
"""


def run_some(names, *arguments, folder, cwd):
    """The doctor's own checks of these names, with torch alone."""
    code = RUN_SOME.format(
        torch_only='--torch-only' in arguments, names=names, arguments=list(arguments)
    )
    return run_with_torch_alone(['-c', code], folder=folder, cwd=cwd)


@pytest.mark.slow
def test_runs_with_torch_alone(repo_root, tmp_path):
    names = ('versions', 'device', 'voxels', 'attention, small')
    answer = run_some(names, '--torch-only', '--device', 'cpu', folder=tmp_path, cwd=repo_root)
    assert answer.returncode == 0, answer.stdout + answer.stderr[-3000:]
    assert [line for line in answer.stdout.splitlines() if line.startswith('| attention, small')]


@pytest.mark.slow
def test_an_absent_stack_is_told_and_the_rest_is_checked(repo_root, tmp_path):
    names = ('versions', 'sparse convolution', 'voxels')
    answer = run_some(names, '--device', 'cpu', folder=tmp_path, cwd=repo_root)
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    assert [line.endswith('| ok |') for line in lines if line.startswith('| voxels')] == [True]
    assert [line for line in lines if line.startswith('sparse convolution: ModuleNotFoundError')]


def test_every_import_of_the_package_that_needs_no_stack(repo_root, tmp_path):
    modules = (
        'aqr',
        'geometry',
        'transformer',
        'doctor.checks',
        'voxelize',
    )
    code = 'import ' + ', '.join(f'projects.cmt_aqr.{name}' for name in modules)
    answer = run_with_torch_alone(['-c', code], folder=tmp_path, cwd=repo_root)
    assert answer.returncode == 0, answer.stderr
