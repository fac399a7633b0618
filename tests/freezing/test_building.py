"""Freezing by a call, once and again, and by the settings in a config."""

import copy

import pytest
from freezable import bev, names_below, resnet, second, trainable, training, vovnet
from mmdet3d.models import SECOND
from mmdet3d.registry import MODELS
from torch import nn

from projects.cmt_aqr.freezing import (
    FreezePolicy,
    build_freezable,
    eval_norms,
    freeze,
    frozen_modules,
)
from projects.cmt_aqr.freezing.freeze_handle import preview


def test_freezing_deletes_existing_gradients():
    module = second()
    sum(x.sum() for x in module(*bev())).backward()
    freeze(module, FreezePolicy(frozen_stages=1))
    assert all(p.grad is None for p in module.blocks[0].parameters())
    assert all(p.grad is not None for p in module.blocks[1].parameters())


def test_another_policy_replaces_the_first():
    module = second().train()
    module.blocks[1][0].requires_grad_(False)  # by hand
    by_hand = names_below(module, 'blocks.1.0')
    everything = {name for name, _ in module.named_parameters()}
    freeze(module, FreezePolicy(frozen=True, norm_eval=True))
    assert trainable(module) == set()
    freeze(module, FreezePolicy(freeze_layers=[1]))
    assert trainable(module) == names_below(module, 'blocks.0')
    assert {'', 'blocks.0', 'blocks.0.1'} <= training(module)
    freeze(module, FreezePolicy())
    assert trainable(module) == everything - by_hand
    assert training(module) == {name for name, _ in module.named_modules()}
    assert frozen_modules(module) == {}
    assert 'train' not in vars(module)


@pytest.mark.parametrize(
    'policy', [FreezePolicy(), FreezePolicy(frozen_stages=1), FreezePolicy(frozen=True)]
)
def test_a_preview_equals_freezing_and_changes_nothing(policy):
    module = freeze(second(), FreezePolicy(frozen_stages=1))
    before = trainable(module), module.train
    names = preview(module, policy)
    assert (trainable(module), module.train) == before
    freeze(module, policy)
    everything = {name for name, _ in module.named_parameters()}
    assert {name for name in everything if names.covers(name)} == everything - trainable(module)


@pytest.mark.parametrize('mode', [True, False])
def test_an_unfrozen_module_takes_the_last_requested_mode(mode):
    module = freeze(second().train(not mode), FreezePolicy(frozen=True)).train(mode)
    freeze(module, FreezePolicy())
    assert {m.training for m in module.modules()} == {mode}


def test_a_policy_that_is_refused_leaves_the_first_in_place():
    module = freeze(second(), FreezePolicy(frozen_stages=1))
    with pytest.raises(ValueError, match='frozen_stages 3'):
        freeze(module, FreezePolicy(frozen_stages=3))
    assert trainable(module.train()) == names_below(module, 'blocks.1')
    assert not module.blocks[0].training


@pytest.mark.parametrize('build', [resnet, vovnet])
def test_norm_eval_of_the_class_itself_stays(build):
    module = build(norm_eval=True)
    norms = {n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert set(eval_norms(module)) == norms
    freeze(module, FreezePolicy(frozen_stages=1)).train()
    assert set(eval_norms(module)) == norms
    assert not norms & training(module)
    assert eval_norms(build(norm_eval=False)) == {}


# From a config.

SECOND_CONFIG = dict(
    type='SECOND', in_channels=4, out_channels=[4, 4], layer_nums=[1, 1], layer_strides=[1, 2]
)
RESNET_CONFIG = dict(type='mmdet.ResNet', depth=18, base_channels=4, norm_eval=False)


def test_settings_beside_the_arguments_of_a_class():
    config = dict(**SECOND_CONFIG, frozen_stages=1, norm_eval=True)
    kept = copy.deepcopy(config)
    module = build_freezable(config, MODELS, name='pts_backbone')
    assert config == kept
    assert type(module) is SECOND
    assert trainable(module) == names_below(module, 'blocks.1')
    assert len(eval_norms(module)) == 4


def test_a_config_without_settings_builds_a_plain_module():
    assert 'train' not in vars(build_freezable(SECOND_CONFIG, MODELS, name='pts_backbone'))


@pytest.mark.parametrize(
    'config', [RESNET_CONFIG, dict(type='VoVNet', spec_name='V-19-slim-eSE', width=0.125)]
)
def test_frozen_stages_means_the_same_for_classes_that_have_their_own(config):
    module = build_freezable({**config, 'frozen_stages': 0}, MODELS, name='img_backbone')
    stages = [name for name, _ in module.named_children() if name.startswith(('layer', 'stage'))]
    assert trainable(module) == names_below(module, *stages)
    assert len(frozen_modules(module)) > 0
    # So a schedule can change it later.
    freeze(module, FreezePolicy(frozen_stages=-1)).train()
    assert trainable(module) == {name for name, _ in module.named_parameters()}


def test_resnets_own_norm_eval_goes_to_the_class():
    config = {**RESNET_CONFIG, 'norm_eval': True, 'freeze_layers': [0]}
    module = build_freezable(config, MODELS, name='img_backbone')
    assert module.norm_eval is True
    assert len(eval_norms(module)) == 20
    assert trainable(module) == names_below(module, 'layer2', 'layer3', 'layer4')


@pytest.mark.parametrize('config', [RESNET_CONFIG, SECOND_CONFIG])
def test_wrong_stages_in_a_config(config):
    with pytest.raises(ValueError, match=r'^part \(\w+\): frozen_stages 5 is not in -1 to [24]: '):
        build_freezable({**config, 'frozen_stages': 5}, MODELS, name='part')


def test_frozen_stages_goes_to_a_class_with_unknown_layers():
    config = dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1), frozen_stages=1)
    module = build_freezable(config, MODELS, name='img_backbone')
    assert module.frozen_stages == 1
    assert 'train' not in vars(module)


def test_unknown_types_and_arguments_are_the_registrys_errors():
    with pytest.raises(KeyError, match='Nothing is not in'):
        build_freezable(dict(type='Nothing', frozen=True), MODELS, name='part')
    with pytest.raises(TypeError, match='frozen_stage'):
        build_freezable({**SECOND_CONFIG, 'frozen_stage': 1}, MODELS, name='part')
