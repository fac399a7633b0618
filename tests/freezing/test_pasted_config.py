"""A config for freezing pasted from another project stops `tools/train.py` with the right words.

Each case runs the tool on the tiny CMT and its data, as far as it gets.
"""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """
_base_ = ['{root}/configs/cmt/cmt_tiny_synthetic_finetune.py']
load_from = '{root}/projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
train_dataloader = dict(num_workers=0, persistent_workers=False,
                        dataset=dict(data_root='{data}/'))
val_dataloader = dict(dataset=dict(data_root='{data}/'))
"""


def rates(custom_keys: str) -> str:
    """Setting of rates beside those of the recipe."""
    return f'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={{{custom_keys}}}))'


# As the source project has them, with the names of its modules.
FROZEN_STAGES = 'model = dict(pts_backbone=dict(frozen_stages=4, norm_eval=True))'
QUERY_EMBED = rates("'query_embed': dict(lr_mult=0.5)")
OPTIMIZER_HOOK = "dict(type='OptimizerHook', exclude_frozen_parameters=True)"


@pytest.fixture
def write(repo_root, synthetic_root, tmp_path) -> Callable[..., Path]:
    """Write a config that adds settings to those of the tiny CMT's fine-tuning."""

    def write(*settings: str) -> Path:
        path = tmp_path / 'pasted.py'
        base = CONFIG.format(root=repo_root, data=synthetic_root)
        path.write_text('\n'.join([base, *settings]))
        return path

    return write


@pytest.fixture
def train(write, repo_root, tmp_path, monkeypatch) -> Callable[..., None]:
    """Run the tool in this process on a config with the settings added."""

    def train(*settings: str) -> None:
        path = write(*settings)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', ['train.py', str(path)])
        runpy.run_path(str(repo_root / 'tools/train.py'), run_name='__main__')

    return train


def usage_error(train: Callable[..., None], capsys, *settings: str) -> str:
    with pytest.raises(SystemExit) as status:
        train(*settings)
    assert status.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ('settings', 'where'),
    [
        (f'default_hooks = dict(optimizer={OPTIMIZER_HOOK})', 'default_hooks.optimizer'),
        (f'custom_hooks = [{OPTIMIZER_HOOK}]', 'custom_hooks[0]'),
        (f'optimizer_config = {OPTIMIZER_HOOK}', 'optimizer_config'),
        ('optim_wrapper = dict(exclude_frozen_parameters=True)', 'optim_wrapper'),
        (
            'optim_wrapper = dict(paramwise_cfg=dict(exclude_frozen_parameters=True))',
            'optim_wrapper.paramwise_cfg',
        ),
    ],
    ids=lambda value: value if ' ' not in value else '',
)
def test_frozen_parameters_need_not_be_excluded(train, capsys, settings, where):
    line = usage_error(train, capsys, settings)
    assert line.startswith('train.py: config ')
    assert f'{where}.exclude_frozen_parameters=True has no effect: remove it' in line
    assert "constructor='StrictOptimWrapperConstructor'" in line
    if 'OptimizerHook' in settings:
        assert f'{where} is an OptimizerHook, which mmengine has not: use optim_wrapper' in line


def test_all_of_it_at_once_is_refused_before_anything_is_built(train, capsys):
    hook = f'default_hooks = dict(optimizer={OPTIMIZER_HOOK})'
    line = usage_error(train, capsys, FROZEN_STAGES, QUERY_EMBED, hook)
    assert 'default_hooks.optimizer.exclude_frozen_parameters' in line


# What else is easily got wrong.


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (FROZEN_STAGES, 'pts_backbone (SECOND): frozen_stages 4 is not in -1 to 2'),
        (
            QUERY_EMBED,
            "custom_keys: 'query_embed' matches no parameter; did you mean 'bev_embedding' or "
            "'rv_embedding'?",
        ),
        (
            rates("'img_neck': dict(lr_mult=0.0)"),
            "custom_keys['img_neck']: lr_mult is 0, but 6 of its parameters are not frozen",
        ),
        (
            rates("'img_nekc': dict(lr_mult=0.1)"),
            "custom_keys: 'img_nekc' matches no parameter; did you mean 'img_neck'",
        ),
        (
            'model = dict(img_backbone=dict(freeze_ratio=1.5))',
            'freeze_ratio 1.5 must be a number from 0 to 1',
        ),
    ],
    ids=['stages', 'query_embed', 'a rate of zero', 'an unknown key', 'a policy'],
)
def test_the_last_line_names_it(train, capsys, settings, message):
    assert message in usage_error(train, capsys, settings)


@pytest.mark.slow
def test_it_is_the_last_line_of_the_command(write, repo_root, tmp_path):
    answer = subprocess.run(
        [sys.executable, str(repo_root / 'tools/train.py'), str(write(FROZEN_STAGES))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert answer.returncode == 2
    assert 'pts_backbone (SECOND): frozen_stages 4' in answer.stderr.splitlines()[-1]
    assert 'Traceback' not in answer.stderr
