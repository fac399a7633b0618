"""What a recipe trains, and at which rate, parameter by parameter."""

from pathlib import Path
from typing import NamedTuple

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
BACKBONES = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')
NECKS = ('img_neck', 'pts_neck')
DECODER = {
    'transformer': 0.5,
    'bev_embedding': 0.5,
    'rv_embedding': 0.5,
    'shared_conv': 0.5,
    'reference_points': 0.3,
    'task_heads': 0.8,
}
# Design of the recipes, beside the decoder; what has no rate is frozen.
RATES = {
    'a': dict.fromkeys(NECKS, 0.05) | DECODER,
    'b': dict.fromkeys(NECKS, 0.1) | DECODER,
    'c': dict.fromkeys(BACKBONES, 0.01) | dict.fromkeys(NECKS, 0.1) | DECODER,
    'd': DECODER,
    'all': dict.fromkeys((*BACKBONES, *NECKS, *DECODER), 1.0),
}
ROUTER_RATES = {
    'aqr_weight_generator': 1.0,
    'attention_bias_generator.bias_scale': 0.5,
}
CONFIGS = sorted(
    path
    for path in Path(__file__).resolve().parents[1].glob('configs/cmt*/*.py')
    if '_finetune' in path.stem or path.parent.name == 'cmt_aqr'
)


class Recipe(NamedTuple):
    """A config that fine-tunes, its model, and what is to come of it."""

    cfg: Config
    model: nn.Module
    rates: dict[str, float]
    """of every part that trains, relative to the base rate"""

    @property
    def frozen(self) -> set[str]:
        return {*BACKBONES, *NECKS} - self.rates.keys()


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda path: path.stem)
def recipe(request) -> Recipe:
    """Every recipe, with and without router, of every size."""
    cfg = Config.fromfile(request.param)
    letter = request.param.stem.rpartition('_')[2]
    rates = RATES[letter if letter in RATES else 'a']
    aqr = cfg.model.pts_bbox_head.get('aqr')
    if aqr and aqr.bias_generator is None:  # the weights alone have something to learn
        rates = rates | {'aqr_weight_generator': 1.0}
    elif aqr:
        rates = rates | ROUTER_RATES
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return Recipe(cfg, MODELS.build(cfg.model), rates)


def part_of(name: str) -> str:
    """The module of a parameter that a recipe has a rate for."""
    owner = name.removeprefix('pts_bbox_head.')
    return owner if owner in ROUTER_RATES else owner.split('.')[0]


def test_the_trainable_parts_are_those_of_the_recipe(recipe):
    parameters = dict(recipe.model.named_parameters())
    trainable = {part_of(name) for name, p in parameters.items() if p.requires_grad}
    frozen = {part_of(name) for name, p in parameters.items() if not p.requires_grad}
    assert trainable == recipe.rates.keys()
    assert frozen == recipe.frozen


def test_what_is_frozen_and_every_norm_of_a_feature_stay_in_evaluation(recipe):
    model = recipe.model.train()
    for name in recipe.frozen:
        assert not any(module.training for module in model.get_submodule(name).modules()), name
    norms = {
        f'{part}.{name}': module
        for part in (*BACKBONES, *NECKS)
        for name, module in model.get_submodule(part).named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert norms
    assert eval_norms(model).keys() == norms.keys()
    assert not any(norm.training for norm in norms.values())


def test_every_parameter_gets_the_rate_of_its_part(recipe):
    wrapper = build_optim_wrapper(recipe.model, recipe.cfg.optim_wrapper)
    names = {parameter: name for name, parameter in recipe.model.named_parameters()}
    base = next((v for k, v in BASE_RATE.items() if k in recipe.cfg.filename), FULL_SIZE_RATE)
    seen = set()
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names[parameter]
            assert group['lr'] == pytest.approx(base * recipe.rates[part_of(name)]), name
            seen.add(name)
    assert seen == {name for name, p in recipe.model.named_parameters() if p.requires_grad}


def test_the_schedule_keeps_the_ratios_of_the_recipe(recipe):
    cfg = recipe.cfg
    groups = build_optim_wrapper(recipe.model, cfg.optim_wrapper).optimizer.param_groups
    length = {
        key: cfg.train_cfg[key] for key in ('max_epochs', 'max_iters') if key in cfg.train_cfg
    }
    rates = check_schedule(groups, cfg.param_scheduler, epoch_length=20, **length)
    assert set(rates) >= {group['name'] for group in groups}


def test_one_router_alone_may_train(repo_root):
    """All of CMT frozen: what may not be touched stays, and the router still trains."""
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_d.py').model
    cfg.pts_bbox_head.update(
        frozen=True, always_trainable=['aqr_weight_generator', 'attention_bias_generator']
    )
    model = MODELS.build(cfg).train()
    trainable = {part_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == ROUTER_RATES.keys()
    assert not model.pts_bbox_head.shared_conv.bn.training
    assert not any(module.training for module in model.pts_bbox_head.transformer.modules())
