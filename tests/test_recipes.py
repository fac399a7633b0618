"""What a recipe trains, and at which rate, parameter by parameter."""

from pathlib import Path

import pytest
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from projects.cmt_aqr.freezing import eval_norms
from projects.cmt_aqr.freezing.schedule import check_schedule

BASE_RATE = {'tiny_synthetic': 5e-4, 'tiny_real_frame': 5e-4}
FULL_SIZE_RATE = 1.4e-4
FROZEN = {'img_backbone', 'pts_middle_encoder', 'pts_backbone'}
RATES = {
    'img_neck': 0.05,
    'pts_neck': 0.05,
    'transformer': 0.5,
    'bev_embedding': 0.5,
    'rv_embedding': 0.5,
    'shared_conv': 0.5,
    'reference_points': 0.3,
    'task_heads': 0.8,
}
ROUTER_RATES = {
    'aqr_weight_generator': 1.0,
    'attention_bias_generator.bias_scale': 0.5,
}
CONFIGS = sorted(
    path
    for path in Path(__file__).resolve().parents[1].glob('configs/cmt*/*.py')
    if path.stem.endswith('_finetune') or path.parent.name == 'cmt_aqr'
)


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda path: path.stem)
def recipe(request) -> tuple[Config, nn.Module]:
    """A config that fine-tunes, and its model."""
    cfg = Config.fromfile(request.param)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return cfg, MODELS.build(cfg.model)


def part_of(name: str) -> str:
    """The module of a parameter that a recipe has a rate for."""
    owner = name.removeprefix('pts_bbox_head.')
    return owner if owner in ROUTER_RATES else owner.split('.')[0]


def test_the_trainable_parts_are_those_of_the_recipe(recipe):
    cfg, model = recipe
    routed = ROUTER_RATES if cfg.model.pts_bbox_head.get('aqr') else {}
    trainable = {part_of(name) for name, p in model.named_parameters() if p.requires_grad}
    frozen = {part_of(name) for name, p in model.named_parameters() if not p.requires_grad}
    assert trainable == RATES.keys() | routed.keys()
    assert frozen == FROZEN


def test_what_is_frozen_and_the_norms_of_the_necks_stay_in_evaluation(recipe):
    _, model = recipe
    model.train()
    assert not any(m.training for name in FROZEN for m in model.get_submodule(name).modules())
    necks = {name for name in eval_norms(model) if 'neck' in name}
    assert all(name.startswith('pts_neck.') for name in necks)  # the image neck has no norms
    assert len(necks) == len(model.pts_neck.deblocks)
    assert not any(model.get_submodule(name).training for name in necks)
    assert model.pts_neck.training


def test_every_parameter_gets_the_rate_of_its_part(recipe):
    cfg, model = recipe
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    base = next((v for k, v in BASE_RATE.items() if k in cfg.filename), FULL_SIZE_RATE)
    seen = set()
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names[parameter]
            assert group['lr'] == pytest.approx(base * (RATES | ROUTER_RATES)[part_of(name)]), name
            seen.add(name)
    assert seen == {name for name, p in model.named_parameters() if p.requires_grad}


def test_the_schedule_keeps_the_ratios_of_the_recipe(recipe):
    cfg, model = recipe
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    length = {
        key: cfg.train_cfg[key] for key in ('max_epochs', 'max_iters') if key in cfg.train_cfg
    }
    rates = check_schedule(
        wrapper.optimizer.param_groups, cfg.param_scheduler, epoch_length=20, **length
    )
    assert set(rates) >= {group['name'] for group in wrapper.optimizer.param_groups}
