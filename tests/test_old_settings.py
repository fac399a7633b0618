"""Settings that mmengine would ignore are named with what stands for them today."""

from pathlib import Path

import pytest
from mmengine.config import Config

from projects.cmt_aqr.old_settings import OLD_KEYS, find_old_settings

CONFIGS = sorted(Path(__file__).resolve().parents[1].glob('configs/cmt*/*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_own_configs_have_none(path):
    assert find_old_settings(Config.fromfile(path).to_dict()) == []


@pytest.mark.parametrize('key', OLD_KEYS)
def test_every_old_key_is_named_with_its_successor(key):
    (message,) = find_old_settings({key: dict(interval=1), 'work_dir': 'there'})
    assert message.startswith(f'{key} is of MMDetection3D 0.x and has no effect: use ')
    assert message.endswith(OLD_KEYS[key])


def test_a_name_for_a_value_that_is_used_is_no_old_key():
    optimizer = dict(type='AdamW', lr=1e-4)
    cfg = dict(
        optimizer=optimizer,
        optim_wrapper=dict(optimizer=optimizer),
        total_epochs=20,
        train_cfg=dict(max_epochs=20),
    )
    assert find_old_settings(cfg) == []
    cfg['total_epochs'] = 24
    assert len(find_old_settings(cfg)) == 1


@pytest.mark.parametrize('kind', ['OptimizerHook', 'Fp16OptimizerHook', 'mmcv.OptimizerHook'])
def test_optimizer_hooks_have_become_the_wrapper(kind):
    hook = dict(type=kind, grad_clip=dict(max_norm=35))
    (default,) = find_old_settings(dict(default_hooks=dict(optimizer=hook)))
    assert default.startswith(f'default_hooks.optimizer is an {kind}, which mmengine has not')
    assert 'optim_wrapper=dict(clip_grad=' in default
    (custom,) = find_old_settings(dict(custom_hooks=[dict(type='EMAHook'), hook]))
    assert custom.startswith('custom_hooks[1] is an ')


@pytest.mark.parametrize(
    ('cfg', 'where'),
    [
        (dict(optim_wrapper=dict(exclude_frozen_parameters=True)), 'optim_wrapper'),
        (
            dict(default_hooks=dict(optimizer=dict(exclude_frozen_parameters=True))),
            'default_hooks.optimizer',
        ),
        (dict(custom_hooks=[dict(exclude_frozen_parameters=True)]), 'custom_hooks[0]'),
    ],
)
def test_frozen_parameters_need_not_be_excluded(cfg, where):
    (message,) = find_old_settings(cfg)
    assert message.startswith(f'{where}.exclude_frozen_parameters=True has no effect: remove it')
    assert 'StrictOptimWrapperConstructor' in message


def test_resize_limits_are_named_with_the_zoom():
    step = dict(type='ResizeCropFlipImage', resize_lim=(0.47, 0.625))
    (message,) = find_old_settings(dict(train_pipeline=[step], test_pipeline=[step]))
    assert message.startswith('train_pipeline[0].resize_lim=(0.47, 0.625) is relative to the size')
    assert 'use zoom_lim' in message
