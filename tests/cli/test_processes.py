"""How processes start."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from mmengine.config import Config

from projects.cmt_aqr.cli.processes import check_launcher, start_cpu_processes
from projects.cmt_aqr.usage_error import UsageError


def test_denormals_are_zero_on_every_thread():
    code = (
        'import torch\n'
        'from projects.cmt_aqr.cli.processes import start_process\n'
        'start_process(0)\n'
        'torch.set_num_threads(2)\n'
        'small = torch.full((1_000_000,), 1e-30)\n'
        'print((small * 1e-10).count_nonzero().item())'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert shown.stdout == '0\n'


def test_results_must_have_a_place_before_several_processes_test(tmp_path, monkeypatch):
    for name, value in dict(RANK=0, WORLD_SIZE=2, MASTER_ADDR='::1', MASTER_PORT=1).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(UsageError, match=f'{os.getcwd()} cannot be written, and several processes'):
        check_launcher('pytorch')


def test_processes_wait_as_long_as_the_config_says(repo_root, monkeypatch):
    given = {}
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *a, **k: given.update(k))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = Config.fromfile(repo_root / 'configs/_base_/default_runtime.py')
    cfg.launcher = 'pytorch'
    start_cpu_processes(cfg)
    assert given['timeout'] == timedelta(hours=2)
    start_cpu_processes(Config(dict(launcher='pytorch')))
    assert given['timeout'] is None
