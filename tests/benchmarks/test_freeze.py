"""The arithmetic of the comparison, its table, and what it needs to start."""

import argparse
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from projects.cmt_aqr.benchmarks import freeze
from projects.cmt_aqr.benchmarks.training_step import BRANCHES
from projects.cmt_aqr.usage_error import UsageError

FACTS = {
    'all trained': dict(trainable=8_000_000, frozen_parts=[], checkpointed_parts=['img_neck']),
    'recipe A': dict(
        trainable=2_000_000, frozen_parts=['img_backbone', 'pts_backbone'], checkpointed_parts=[]
    ),
}
MEMORY = {'all trained': 4 * 10**9, 'recipe A': 10**9}


def times(*, step: float, forward: float, backbone: float) -> dict[str, float]:
    """Of a step in which half of the time nothing is computed, for others do."""
    phases = {
        'step': step,
        'input': 0.1,
        'forward': forward,
        'backward': 1.0,
        'update': 0.0125,
        'part/img_backbone': backbone,
        'part/pts_backbone': 0.5,
    }
    for branch in BRANCHES:
        phases |= {f'forward/{branch}': 0.1, f'backward/{branch}': 0.2}
    return phases | {f'cpu/{phase}': seconds / 2 for phase, seconds in phases.items()}


@pytest.fixture
def runs():
    """Of all trained and of recipe A, made up."""
    return {
        'all trained': [times(step=s, forward=2.0, backbone=0.5) for s in (6.0, 5.0, 9.0)],
        'recipe A': [times(step=s, forward=1.0, backbone=0.1) for s in (3.0, 2.0, 4.0)],
    }


@pytest.fixture
def results(runs):
    return freeze.compare(runs, FACTS, MEMORY)


@pytest.mark.parametrize(('share', 'ideal'), [(0.0, 1.0), (0.5, 1.5), (0.75, 2.0), (1.0, 3.0)])
def test_the_ideal_leaves_the_backward_pass_of_frozen_parts_out(share, ideal):
    assert freeze.ideal_speed_up(share) == pytest.approx(ideal)


def test_sides_are_held_against_all_trained(results):
    trained, recipe = results['all trained'], results['recipe A']
    for ratio in ('speed_up', 'work_saved', 'ideal', 'memory_share'):
        assert trained[ratio] == 1, ratio
    assert recipe['seconds']['step'] == (3.0, 2.0, 4.0)
    assert recipe['speed_up'] == pytest.approx(6 / 3)
    assert recipe['memory_share'] == pytest.approx(1 / 4)
    # By the forward work with all trained: 0.5 + 0.5 of 2, whatever it takes when frozen.
    assert recipe['frozen_share'] == pytest.approx(0.5)
    assert recipe['ideal'] == pytest.approx(1.5)
    # Half of the frozen parts' forward, for that is processor time; no less backward work is left.
    assert trained['at_most'] == 1
    assert recipe['at_most'] == pytest.approx(3 / (3 - 0.5))


def test_what_a_side_still_does_in_the_backward_pass_of_a_branch_limits_it(runs):
    """A trained neck behind a frozen backbone."""
    for step in runs['recipe A']:
        step['cpu/backward/camera'] = 0.025
    recipe = freeze.compare(runs, FACTS, MEMORY)['recipe A']
    assert recipe['at_most'] == pytest.approx(3 / (3 - 0.5 - 0.075))


def test_the_table(results):
    data = dict(
        configs={'all trained': 'cmt.py'},
        options={'model.x': 1},
        data_root=None,
        image_size=(32, 96),
        rounds=3,
        warmup=1,
        sides=results,
    )
    lines = freeze._markdown(data, torch.device('cpu')).splitlines()
    assert lines[0].startswith(
        'Training step of `cmt.py`, model.x=1 on one sample of random input, images of 32 x 96, '
    )
    assert lines[2:6] == [
        '|  | trained | forward | backward | update | step | faster | processor time | less '
        '| ideal (r) | at most | peak |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| all trained | 8.00 M | 2.00 s | 1.00 s | 12.5 ms | 6.00 s (5.00 s–9.00 s) | 1.00× '
        '| 3.00 s (2.50 s–4.50 s) | 1.00× | 1.00× (0.00) | 1.00× | 4.00 GB (1.00×) |',
        '| recipe A | 2.00 M | 1.00 s | 1.00 s | 12.5 ms | 3.00 s (2.00 s–4.00 s) | 2.00× '
        '| 1.50 s (1.00 s–2.00 s) | 2.00× | 1.50× (0.50) | 1.20× | 1.00 GB (0.25×) |',
    ]
    assert lines[7] == 'By branch, in processor time of all threads:'
    assert lines[9].startswith('|  | input | forward: camera |')
    assert lines[12].startswith('| recipe A | 50.0 ms | 50.0 ms |')
    assert 'img_neck keeps few activations' in lines[-1]


def test_a_gpu_has_no_processor_time(runs):
    """What it does takes the time that passes."""
    for steps in runs.values():
        steps[:] = [{k: v for k, v in step.items() if not k.startswith('cpu/')} for step in steps]
    results = freeze.compare(runs, FACTS, MEMORY)
    assert results['recipe A']['work_saved'] == results['recipe A']['speed_up']
    assert results['recipe A']['frozen_share'] == pytest.approx(0.5)
    assert 'processor time' not in freeze._step_table(results, on_cpu=False)


def test_the_config_to_fine_tune_stands_beside_the_other(repo_root):
    stem = 'cmt_voxel0100_r50_800x320_cbgs'
    found = freeze.side_configs(repo_root / f'configs/cmt/{stem}.py')
    assert found.keys() == freeze.SIDES.keys()
    for name, path in found.items():
        assert path.stem == (stem if name == 'all trained' else f'{stem}_finetune')


@pytest.mark.parametrize(
    ('side', 'recipe'),
    [('recipe B', 'fast_necks'), ('recipe C', 'low_rate'), ('recipe D', 'fixed_features')],
)
def test_the_options_of_a_side_make_a_recipe(repo_root, side, recipe):
    config = repo_root / 'configs/cmt/cmt_tiny_synthetic_finetune.py'
    trained = []
    for change in (dict(freeze.SIDES[side].options), Config.fromfile(config).recipes[recipe]):
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(change)
        model = MODELS.build(cfg.model)
        names = {p: name for name, p in model.named_parameters()}
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        trained.append({names[p]: group['lr'] for group in groups for p in group['params']})
    assert trained[0] == trained[1]


def test_sides_can_be_chosen(repo_root):
    config = repo_root / 'configs/cmt/cmt_tiny_synthetic.py'
    assert [*freeze.side_configs(config, ['recipe D'])] == ['all trained', 'recipe D']


@pytest.mark.parametrize(
    ('side', 'fast_path'),
    [
        ('recipe A, plain path', None),
        ('recipe A', {}),
        ('recipe A, bfloat16', dict(dtype='bfloat16')),
        ('recipe D', {}),
    ],
)
def test_how_a_side_computes_what_is_frozen(repo_root, side, fast_path):
    path = freeze.side_configs(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')[side]
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(freeze.SIDES[side].options))
    assert cfg.model.fast_path == fast_path


def test_a_config_without_recipes_is_refused(tmp_path):
    (tmp_path / 'plain.py').touch()
    with pytest.raises(UsageError, match=r'recipe A.*: .*plain_finetune\.py does not exist'):
        freeze.side_configs(tmp_path / 'plain.py')


def test_a_frame_that_is_not_there_is_refused(repo_root, tmp_path):
    args = argparse.Namespace(
        config=Path(repo_root, 'configs/cmt/cmt_tiny_synthetic.py'),
        synthetic=False,
        sides=['recipe A'],
        frame=str(tmp_path / 'frame'),
    )
    with pytest.raises(UsageError, match=r'nuscenes_infos_train\.pkl does not exist.*--synthetic'):
        freeze.run(args)
