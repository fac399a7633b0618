"""What a run writes about itself."""

import json
import subprocess
from pathlib import Path

import torch
from toy_runner import make_runner

from projects.cmt_aqr.hooks import RunInfoHook, run_info_hook


def train(work_dir: Path) -> dict:
    runner = make_runner(work_dir, custom_hooks=[RunInfoHook()])
    runner.train()
    return json.loads((Path(runner.log_dir) / 'run_info.json').read_text())


def test_run_info_names_the_provenance_of_the_result(tmp_path, repo_root):
    info = train(tmp_path)
    head = subprocess.run(
        ['git', '-C', str(repo_root), 'rev-parse', 'HEAD'], capture_output=True, text=True
    ).stdout.strip()
    assert info['seed'] == 3
    assert info['commit'] == (head or None)
    assert info['versions']['torch'] == torch.__version__
    assert info['processes'] == 1
    assert 'pytest' in info['command']
    assert info['scores'] == [{'phase': 'val', 'iteration': 2, 'count': 4.0}]


def test_a_folder_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(run_info_hook, '_REPO_ROOT', tmp_path)
    info = train(tmp_path / 'run')
    assert (info['commit'], info['changed']) == (None, None)


def test_a_package_inside_of_another_checkout_has_no_commit(repo_root, monkeypatch):
    """As in an environment that lies in the folder of another project."""
    monkeypatch.setattr(run_info_hook, '_REPO_ROOT', repo_root / 'projects')
    assert run_info_hook.code_version() == {'commit': None, 'changed': None}


def test_a_machine_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert run_info_hook.code_version() == {'commit': None, 'changed': None}
