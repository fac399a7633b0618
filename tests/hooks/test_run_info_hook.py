"""What a run writes about itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
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
    assert info['command'].startswith(sys.argv[0])
    assert info['scores'] == [{'phase': 'val', 'iteration': 2, 'count': 4.0}]


@pytest.mark.parametrize('root', ['a folder without git', 'another checkout', 'no git installed'])
def test_no_commit_is_named_outside_of_the_checkout(tmp_path, repo_root, monkeypatch, root):
    """A package may lie in an environment within the folder of another project."""
    if root == 'no git installed':
        monkeypatch.setenv('PATH', str(tmp_path))
    else:
        folder = tmp_path if root == 'a folder without git' else repo_root / 'projects'
        monkeypatch.setattr(run_info_hook, '_REPO_ROOT', folder)
    assert run_info_hook.code_version() == {'commit': None, 'changed': None}
