"""Recipes, parameter by parameter: what each trains, and at which rate."""

import argparse
import math
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from projects.cmt_aqr.freezing import eval_norms
from projects.cmt_aqr.freezing.schedule import RunLength, check_schedule

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
# Rates by recipe; parts without one are frozen.
RATES = {
    'frozen': dict.fromkeys(NECKS, 0.05) | DECODER,
    'fast_necks': dict.fromkeys(NECKS, 0.1) | DECODER,
    'low_rate': dict.fromkeys(BACKBONES, 0.01) | dict.fromkeys(NECKS, 0.1) | DECODER,
    'fixed_features': DECODER,
    'full_rate': dict.fromkeys((*BACKBONES, *NECKS, *DECODER), 1.0),
}
ROUTER_RATES = {
    'router.aqr_weight_generator': 1.0,
    'router.attention_bias_generator.bias_scale': 0.5,
    'router.attention_bias_generator.temperature': 1.0,
}
# Parts of the router that have something to learn, by routing form.
LEARNED = {
    'BiasRouting': ['router.aqr_weight_generator', 'router.attention_bias_generator.bias_scale'],
    'MixRouting': list(ROUTER_RATES),
    'GateRouting': ['router.aqr_weight_generator'],
    'HardChoiceRouting': ['router.aqr_weight_generator'],
    None: ['router.aqr_weight_generator'],
}
FOLDER = Path(__file__).resolve().parents[1] / 'configs'
CONFIGS = sorted(
    path
    for path in FOLDER.glob('cmt*/*.py')
    # A planner trains alone, beside a detector that is frozen as a whole. On the streets, decoder
    # and router train on cached features, all by one rate.
    if '_finetune' in path.stem
    or (path.parent.name == 'cmt_aqr' and not path.stem.endswith(('_plan', '_streets_failures')))
)
R50, VOV = 'voxel0100_r50_800x320_cbgs', 'voxel0075_vov_1600x640_cbgs'
# Every config as it is, and the other recipes for each size, without and with a router.
CASES = [(path, 'frozen') for path in CONFIGS] + [
    (FOLDER / name, recipe)
    for size in ('tiny_synthetic', R50, VOV)
    for name in (f'cmt/cmt_{size}_finetune.py', f'cmt_aqr/cmt_aqr_{size}.py')
    for recipe in RATES
    if recipe != 'frozen'
]
CHILD = """
_base_ = '{path}'
model = _base_.recipes.{recipe}.model
optim_wrapper = _base_.recipes.{recipe}.optim_wrapper
"""


class Recipe(NamedTuple):
    """A config for fine-tuning, its model, and the rates that its parts should get."""

    cfg: Config
    model: nn.Module
    rates: dict[str, float]
    """relative to the base rate, by part; other parts are frozen"""
    base_rate: float

    @property
    def frozen(self) -> set[str]:
        return {*BACKBONES, *NECKS, *DECODER} - self.rates.keys()

    def part(self, name: str) -> nn.Module:
        return self.model.get_submodule(f'pts_bbox_head.{name}' if name in DECODER else name)


def read(path: Path, recipe: str, folder: Path) -> Config:
    """The config, or one that inherits from it with another recipe, as users write it."""
    if recipe == 'frozen':
        return Config.fromfile(path)
    child = folder / f'{path.stem}_{recipe}.py'
    child.write_text(CHILD.format(path=path, recipe=recipe))
    return Config.fromfile(child)


@pytest.fixture(scope='module', params=CASES, ids=lambda case: f'{case[0].stem}-{case[1]}')
def recipe(request, tmp_path_factory) -> Recipe:
    path, name = request.param
    cfg = read(path, name, tmp_path_factory.mktemp('configs'))
    rates = RATES[name]
    base_rate = next((v for k, v in BASE_RATE.items() if k in path.stem), FULL_SIZE_RATE)
    aqr = cfg.model.pts_bbox_head.get('aqr')
    if aqr:
        form = aqr.routing and aqr.routing.type
        rates = rates | {name: ROUTER_RATES[name] for name in LEARNED[form]}
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return Recipe(cfg, MODELS.build(cfg.model), rates, base_rate)


def part_of(name: str) -> str:
    """Name of the module, among those with a rate in a recipe, that holds the parameter."""
    owner = name.removeprefix('pts_bbox_head.')
    if owner in ROUTER_RATES:
        return owner
    parts = owner.split('.')
    return '.'.join(parts[:2]) if parts[0] == 'router' else parts[0]


def test_the_trainable_parts_are_those_of_the_recipe(recipe):
    parameters = dict(recipe.model.named_parameters())
    trainable = {part_of(name) for name, p in parameters.items() if p.requires_grad}
    frozen = {part_of(name) for name, p in parameters.items() if not p.requires_grad}
    assert trainable == recipe.rates.keys()
    assert frozen == recipe.frozen


def test_frozen_parts_and_all_norms_of_features_stay_in_evaluation_mode(recipe):
    model = recipe.model.train()
    for name in recipe.frozen:
        assert not any(module.training for module in recipe.part(name).modules()), name
    norms = {
        module
        for part in (*BACKBONES, *NECKS)
        for module in recipe.part(part).modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    assert norms
    assert set(eval_norms(model).values()) == norms
    assert not any(norm.training for norm in norms)


def rates_of(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Learning rates by the names of the parameters that train."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    return {names[p]: group['lr'] for group in groups for p in group['params']}


def test_every_parameter_gets_the_rate_of_its_part(recipe):
    names = [name for name, p in recipe.model.named_parameters() if p.requires_grad]
    expected = {name: recipe.base_rate * recipe.rates[part_of(name)] for name in names}
    assert rates_of(recipe.model, recipe.cfg) == pytest.approx(expected)


def test_the_schedule_keeps_the_ratios_of_the_recipe(recipe):
    cfg = recipe.cfg
    groups = build_optim_wrapper(recipe.model, cfg.optim_wrapper).optimizer.param_groups
    length = {
        key: cfg.train_cfg[key] for key in ('max_epochs', 'max_iters') if key in cfg.train_cfg
    }
    length = RunLength(epoch_length=20, **length)
    rates, fault = check_schedule(groups, cfg.param_scheduler, length)
    assert fault is None
    assert set(rates) >= {group['name'] for group in groups}


@pytest.mark.parametrize(
    ('recipe', 'options'),
    [
        (
            'fast_necks',
            ['optim_wrapper.paramwise_cfg.custom_keys.{img,pts}_neck.lr_mult=0.1'],
        ),
        (
            'low_rate',
            [
                'model.{img_backbone,pts_backbone,pts_middle_encoder}.frozen=False',
                'optim_wrapper.paramwise_cfg.custom_keys.{img,pts}_neck.lr_mult=0.1',
            ],
        ),
        ('fixed_features', ['model.{img,pts}_neck.frozen=True']),
    ],
)
def test_options_of_the_command_line_give_the_same_as_a_recipe(
    repo_root, tmp_path, recipe, options
):
    """By the options that docs/freezing.md gives, whose braces the shell expands."""
    page = (repo_root / 'docs/freezing.md').read_text()
    assert all(f'`{option}`' in page for option in options)
    path = FOLDER / 'cmt_aqr/cmt_aqr_tiny_synthetic.py'
    given, expected = Config.fromfile(path), read(path, recipe, tmp_path)
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    words = [word for option in options for word in expand(option)]
    given.merge_from_dict(parser.parse_args(['--cfg-options', *words]).cfg_options)
    first, second = (rates_of(MODELS.build(cfg.model), cfg) for cfg in (given, expected))
    assert first == second


def expand(word: str) -> list[str]:
    """`a.{b,c}.d` -> `a.b.d`, `a.c.d`, as a shell expands it."""
    before, _, rest = word.partition('{')
    names, _, after = rest.partition('}')
    return [f'{before}{name}{after}' for name in names.split(',')]


def test_a_saved_config_has_the_recipe_and_offers_the_others(tmp_path):
    cfg = read(FOLDER / f'cmt_aqr/cmt_aqr_{R50}.py', 'low_rate', tmp_path)
    cfg.dump(tmp_path / 'saved.py')
    saved = Config.fromfile(tmp_path / 'saved.py')
    assert (saved.model, saved.optim_wrapper) == (cfg.model, cfg.optim_wrapper)
    again = read(tmp_path / 'saved.py', 'fixed_features', tmp_path)
    assert again.model.img_neck.frozen is True


def test_one_router_alone_may_train(repo_root):
    """With all of CMT frozen, only the router trains."""
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
    cfg.merge_from_dict(cfg.recipes.fixed_features)
    cfg.model.pts_bbox_head.update(frozen=True, always_trainable=['router'])
    model = MODELS.build(cfg.model).train()
    trainable = {part_of(name) for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(LEARNED['GateRouting'])
    assert not model.pts_bbox_head.shared_conv.bn.training
    assert not any(module.training for module in model.pts_bbox_head.transformer.modules())


FAILURES = 'cmt_aqr_tiny_synthetic_failures'
COMPARED = [path for path in CONFIGS if path.stem.startswith(FAILURES)]


def test_what_is_compared_differs_from_the_control_by_the_router_alone(repo_root):
    """All share data, failures, steps and initial weights."""
    control = Config.fromfile(
        repo_root / 'configs/cmt/cmt_tiny_synthetic_failures_finetune.py'
    ).to_dict()
    shared = ('train_dataloader', 'test_dataloader', 'param_scheduler', 'train_cfg', 'load_from')
    assert len(COMPARED) == 4
    for path in COMPARED:
        cfg = Config.fromfile(path).to_dict()
        assert {key: cfg[key] for key in shared} == {key: control[key] for key in shared}
        assert cfg['optim_wrapper']['optimizer'] == control['optim_wrapper']['optimizer']
        head = cfg['model']['pts_bbox_head']
        assert head.pop('aqr')
        assert cfg['model'] == control['model']


@pytest.mark.parametrize('size', [R50, VOV])
def test_the_router_at_full_size_differs_from_its_control_by_itself_alone(repo_root, size):
    configs = repo_root / 'configs'
    control = Config.fromfile(configs / f'cmt/cmt_{size}_failures_finetune.py').to_dict()
    router = Config.fromfile(configs / f'cmt_aqr/cmt_aqr_{size}_failures.py').to_dict()
    same = Config.fromfile(configs / f'cmt_aqr/cmt_aqr_{size}.py').to_dict()
    assert router['model'] == same['model']
    assert router['optim_wrapper'] == same['optim_wrapper']
    assert router['model']['pts_bbox_head'].pop('aqr')
    for part in ('model', 'train_dataloader', 'test_dataloader', 'param_scheduler', 'train_cfg'):
        assert router[part] == control[part]


def test_the_failures_of_training_leave_some_unseen_and_nothing_moves_the_features():
    pipeline = Config.fromfile(COMPARED[0]).train_dataloader.dataset.pipeline
    assert [step.type for step in pipeline[:2]] == ['DrawIndex', 'RandomFailure']
    trained = {failure.type for failure in pipeline[1].failures}
    assert trained == {
        'LidarDrop', 'CameraDrop', 'BeamReduction', 'LimitedFieldOfView', 'PointsDrop',
        'ObjectFailure', 'RandomCameraLoss', 'Occlusion', 'Darkness', 'MotionBlur',
    }  # fmt: skip
    assert not any(step.type.startswith(('GlobalRot', 'RandomFlip')) for step in pipeline)
    (images,) = (step for step in pipeline if step.type == 'ResizeCropFlipImage')
    assert images.training is False


@pytest.fixture(scope='module')
def without_lidar(synthetic_root) -> dict:
    """A sample as all variants see it, after a failure of its LiDAR."""
    dataset = Config.fromfile(COMPARED[0]).train_dataloader.dataset
    dataset.update(data_root=str(synthetic_root))
    dataset.metainfo.version = 'v1.0-mini'
    dataset.pipeline[1].update(prob=1.0, failures=[dict(type='LidarDrop')])
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(dataset)
    dataset.pipeline.transforms[0].set_epoch(0)
    return dataset[0]


@pytest.mark.parametrize('variant', COMPARED, ids=lambda path: path.stem)
def test_every_variant_learns_from_a_damaged_sample(without_lidar, variant):
    cfg = Config.fromfile(variant)
    model = MODELS.build(cfg.model).train()
    batch = model.data_preprocessor(pseudo_collate([deepcopy(without_lidar)]), True)
    losses = model(**batch, mode='loss')
    if 'hard_choice' in variant.stem:
        assert losses['loss_reliability'].item() == pytest.approx(math.log(3))
    else:
        assert 'loss_reliability' not in losses
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in trainable.items() if p.grad is None} == set()


@pytest.mark.parametrize('size', ['tiny_synthetic', R50])
def test_a_router_has_under_a_million_parameters(repo_root, size):
    cfg = Config.fromfile(repo_root / f'configs/cmt_aqr/cmt_aqr_{size}.py')
    head = MODELS.build(cfg.model).pts_bbox_head
    assert sum(p.numel() for p in head.router.parameters()) < 1e6
