"""What policies freeze, that it stays frozen, and what a wrong setting says.

Every strategy is compared with the exact set of names that train.
"""

import copy
import itertools
import pickle

import pytest
import torch
from mmdet.models import ResNet
from mmdet3d.models import SECOND, SECONDFPN, HardSimpleVFE, SparseEncoder
from mmdet3d.registry import MODELS
from torch import nn

from projects.cmt_aqr.backbones import CmtSparseEncoder, VoVNet
from projects.cmt_aqr.freezing import (
    FreezePolicy,
    build_freezable,
    eval_norms,
    freeze,
    frozen_modules,
)
from projects.cmt_aqr.necks import CPFPN
from projects.cmt_aqr.transformer import CmtTransformer

ENCODER_LAYERS = 12
VIT_SIZE = dict(hidden_size=2, num_attention_heads=1, num_hidden_layers=ENCODER_LAYERS)


def dinov2() -> nn.Module:
    transformers = pytest.importorskip('transformers')
    config = transformers.Dinov2Config(**VIT_SIZE, image_size=28, mlp_ratio=1)
    return transformers.Dinov2Model(config)


def siglip() -> nn.Module:
    transformers = pytest.importorskip('transformers')
    config = transformers.SiglipVisionConfig(**VIT_SIZE, image_size=28, intermediate_size=2)
    return transformers.SiglipVisionModel(config)


def resnet(**kwargs) -> ResNet:
    return ResNet(depth=18, base_channels=4, **{'norm_eval': False, **kwargs})


def second(**kwargs) -> SECOND:
    return SECOND(4, out_channels=[4, 4], layer_nums=[1, 1], layer_strides=[1, 2], **kwargs)


def second_fpn() -> SECONDFPN:
    return SECONDFPN(in_channels=[4, 4], out_channels=[4, 4], upsample_strides=[1, 2])


def cpfpn() -> CPFPN:
    norm = dict(type='BN')
    return CPFPN(in_channels=[4, 4], out_channels=4, num_outs=2, norm_cfg=norm)


def sparse_encoder(cls: type = SparseEncoder) -> SparseEncoder:
    return cls(
        in_channels=4,
        sparse_shape=[41, 16, 16],
        base_channels=4,
        output_channels=4,
        encoder_channels=((4,), (4, 4), (4, 4), (4, 4)),
        encoder_paddings=((1,), (1, 1), (1, 1), ((0, 1, 1), 1)),
    )


def transformer() -> CmtTransformer:
    return CmtTransformer(8, num_layers=3, num_heads=2, feedforward_channels=8)


def trainable(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


def names_below(module: nn.Module, *roots: str) -> set[str]:
    prefixes = tuple(f'{root}.' for root in roots)
    return {name for name, _ in module.named_parameters() if name.startswith(prefixes)}


def training(module: nn.Module) -> set[str]:
    return {name for name, m in module.named_modules() if m.training}


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(
        'projects.cmt_aqr.freezing.policy.print_log', lambda text, **_: lines.append(text)
    )
    return lines


# The four published strategies for a 12-layer encoder.

STRATEGIES = {
    'conservative': (dict(freeze_ratio=0.5), range(6, 12)),
    'balanced': (dict(freeze_ratio=0.25), range(3, 12)),
    'aggressive': (dict(freeze_layers=[0, 1]), range(2, 12)),
    'precise': (dict(unfreeze_layers=range(6, 12)), range(6, 12)),
}


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize(
    ('build', 'stack', 'rest'),
    [
        (dinov2, 'encoder.layer', ('layernorm',)),
        (siglip, 'encoder.layers', ('post_layernorm', 'head')),
    ],
)
def test_published_strategies(strategy, build, stack, rest):
    settings, layers = STRATEGIES[strategy]
    module = freeze(build(), FreezePolicy(**settings)).train()
    kept = (*(f'{stack}.{i}' for i in layers), *rest)
    assert trainable(module) == names_below(module, *kept)
    frozen = ('embeddings', *(f'{stack}.{i}' for i in range(12) if i not in layers))
    expected = {
        name
        for name, _ in module.named_modules()
        if name in frozen or name.startswith(tuple(f'{root}.' for root in frozen))
    }
    assert set(frozen_modules(module)) == expected
    assert training(module) == {name for name, _ in module.named_modules()} - expected


def test_layers_of_a_larger_encoder_are_refused():
    with pytest.raises(ValueError, match='Dinov2Model') as error:
        freeze(dinov2(), FreezePolicy(unfreeze_layers=range(20, 27)), name='img_backbone')
    assert str(error.value) == (
        'img_backbone (Dinov2Model): unfreeze_layers 20, 21, 22, 23, 24, 25, 26 out of range: it '
        'has 12 layers, 0 to 11 from the input on or -1 to -12 from the output'
    )


# What each setting freezes.

STEM = ('conv1', 'bn1')


@pytest.mark.parametrize(
    ('settings', 'roots'),
    [
        ({}, (*STEM, 'layer1', 'layer2', 'layer3', 'layer4')),
        (dict(frozen=True), ()),
        (dict(frozen_stages=-1), (*STEM, 'layer1', 'layer2', 'layer3', 'layer4')),
        (dict(frozen_stages=0), ('layer1', 'layer2', 'layer3', 'layer4')),
        (dict(frozen_stages=3), ('layer4',)),
        (dict(frozen_stages=4), ()),
        (dict(freeze_ratio=0), (*STEM, 'layer1', 'layer2', 'layer3', 'layer4')),
        (dict(freeze_ratio=0.74), ('layer3', 'layer4')),
        (dict(freeze_ratio=0.75), ('layer4',)),
        (dict(freeze_ratio=1), ()),
        (dict(freeze_layers=[]), (*STEM, 'layer1', 'layer2', 'layer3', 'layer4')),
        (dict(freeze_layers=[-1, 1, 3]), ('layer1', 'layer3')),
        (dict(unfreeze_layers=[]), ()),
        (dict(unfreeze_layers=[-1, 0]), ('layer1', 'layer4')),
        (dict(unfreeze_layers=[0, 1, 2, 3]), ('layer1', 'layer2', 'layer3', 'layer4')),
    ],
)
def test_settings_on_a_resnet(settings, roots):
    module = freeze(resnet(), FreezePolicy(**settings))
    assert trainable(module) == names_below(module, *roots)


@pytest.mark.parametrize(
    ('build', 'stages', 'roots'),
    [
        (second, 1, ('blocks.1',)),
        (second_fpn, 1, ('deblocks.1',)),
        (cpfpn, 1, ('lateral_convs.1', 'fpn_convs.1')),
        (sparse_encoder, 0, ('encoder_layers', 'conv_out')),
        (sparse_encoder, 4, ('conv_out',)),
        (transformer, 2, ('decoder.layers.2', 'decoder.post_norm')),
        (transformer, 3, ()),
    ],
)
def test_frozen_stages_of_other_classes(build, stages, roots):
    module = freeze(build(), FreezePolicy(frozen_stages=stages))
    assert trainable(module) == names_below(module, *roots)


def test_a_ratio_means_the_decimal_that_was_written():
    module = CmtTransformer(2, num_layers=100, num_heads=1, feedforward_channels=1)
    freeze(module, FreezePolicy(freeze_ratio=0.29))  # 0.29 * 100 is 28.999...
    kept = (f'decoder.layers.{i}' for i in range(29, 100))
    assert trainable(module) == names_below(module, *kept, 'decoder.post_norm')


def test_a_ratio_below_one_layer_is_reported(logged):
    assert trainable(freeze(second(), FreezePolicy(freeze_ratio=0.4)))
    assert logged == ['SECOND: freeze_ratio 0.4 of 2 layers freezes none']


PRECEDENCE = [
    (dict(unfreeze_layers=[3]), ('layer4',)),
    (dict(freeze_layers=[2]), ('layer1', 'layer2', 'layer4')),
    (dict(freeze_ratio=0.5), ('layer3', 'layer4')),
    (dict(frozen_stages=1), ('layer2', 'layer3', 'layer4')),
    (dict(frozen=True), ()),
]


@pytest.mark.parametrize(('stronger', 'weaker'), itertools.combinations(range(5), 2))
def test_precedence(stronger, weaker, logged):
    (winner, roots), (loser, _) = PRECEDENCE[stronger], PRECEDENCE[weaker]
    module = freeze(resnet(), FreezePolicy(**winner, **loser), name='img_backbone')
    assert trainable(module) == names_below(module, *roots)
    (won,), (lost,) = winner.items(), loser.items()
    assert logged == [
        f'img_backbone (ResNet): {won[0]} {won[1]!r} wins, ignored: {lost[0]} {lost[1]!r}'
    ]


def test_all_that_is_ignored_stands_in_one_line(logged):
    freeze(second(), FreezePolicy(freeze_layers=[0], freeze_ratio=1.0, frozen=True))
    assert logged == ['SECOND: freeze_layers [0] wins, ignored: freeze_ratio 1.0, frozen True']


@pytest.mark.parametrize(
    ('pattern', 'roots'),
    [
        ('layer2', ('layer2',)),
        ('layer*.0.bn2', ('layer1.0.bn2', 'layer2.0.bn2', 'layer3.0.bn2', 'layer4.0.bn2')),
        ('downsample', ('layer2.0.downsample', 'layer3.0.downsample', 'layer4.0.downsample')),
    ],
)
def test_always_trainable(pattern, roots):
    policy = FreezePolicy(frozen=True, always_trainable=[pattern])
    module = freeze(resnet(), policy).train()
    assert trainable(module) == names_below(module, *roots)
    expected = {
        name
        for name, _ in module.named_modules()
        if name in roots or name.startswith(tuple(f'{root}.' for root in roots))
    }
    assert training(module) == expected
    assert set(frozen_modules(module)) == {n for n, _ in module.named_modules()} - expected


def test_a_module_without_parameters_is_reported(logged):
    module = freeze(HardSimpleVFE(4), FreezePolicy(frozen=True), name='pts_voxel_encoder').train()
    assert logged == ['pts_voxel_encoder (HardSimpleVFE) is frozen, but has no parameters']
    assert not module.training


# Wrong settings.


@pytest.mark.parametrize(
    ('build', 'settings', 'message'),
    [
        (
            second,
            dict(frozen_stages=4),
            'frozen_stages 4 is not in -1 to 2: -1 freezes nothing, n the first n of 2 layers',
        ),
        (
            second,
            dict(frozen_stages=0),
            'frozen_stages 0 freezes the stem, but there is none: -1 freezes nothing, '
            'n the first n of 2 layers',
        ),
        (
            resnet,
            dict(frozen_stages=-2),
            'frozen_stages -2 is not in -1 to 4: -1 freezes nothing, 0 the stem, '
            'n the stem and the first n of 4 layers',
        ),
        (
            second,
            dict(freeze_layers=[0, 2, -3]),
            'freeze_layers 2, -3 out of range: it has 2 layers, 0 to 1 from the input on or '
            '-1 to -2 from the output',
        ),
        # An ignored setting is checked too.
        (second, dict(freeze_layers=[0], frozen_stages=3), 'frozen_stages 3 is not in -1 to 2: '),
        (
            second,
            dict(freeze_layers=[1], unfreeze_layers=[0, -1]),
            'freeze_layers and unfreeze_layers share 1 of 0 to 1: a layer can be in one of them '
            'only',
        ),
        (second, dict(freeze_ratio=1.01), 'freeze_ratio 1.01 must be a number from 0 to 1'),
        (second, dict(freeze_ratio=-0.1), 'freeze_ratio -0.1 must be a number from 0 to 1'),
        (second, dict(freeze_ratio=float('nan')), 'freeze_ratio nan must be a number from 0 to 1'),
        (second, dict(freeze_ratio=True), 'freeze_ratio True must be a number from 0 to 1'),
        (second, dict(freeze_ratio='0.5'), "freeze_ratio '0.5' must be a number from 0 to 1"),
        (second, dict(freeze_layers='1'), "freeze_layers '1' must be a list of indices"),
        (second, dict(freeze_layers=1), 'freeze_layers 1 must be a list of indices'),
        (second, dict(unfreeze_layers=[0.0]), r'unfreeze_layers [0.0] must be a list of indices'),
        (second, dict(frozen_stages=True), 'frozen_stages True must be an integer'),
        (second, dict(frozen_stages=1.0), 'frozen_stages 1.0 must be an integer'),
        (second, dict(frozen='yes'), "frozen 'yes' must be True or False"),
        (second, dict(frozen=None), 'frozen None must be True or False'),
        (second, dict(norm_eval=1), 'norm_eval 1 must be True or False'),
        (second, dict(always_trainable='blocks'), "always_trainable 'blocks' must be a list of"),
        (second, dict(always_trainable=None), 'always_trainable None must be a list of'),
        (
            second,
            dict(frozen=True, always_trainable=['blocks', 'block']),
            "always_trainable 'block' matches no submodule; it has blocks and what lies below",
        ),
        (
            lambda: HardSimpleVFE(4),
            dict(frozen_stages=1),
            'frozen_stages 1 needs layers, and those of HardSimpleVFE are not known; use '
            'frozen=True, or register them with projects.cmt_aqr.freezing.register_layers; known '
            'are CmtTransformer, FPN, ',
        ),
    ],
)
def test_wrong_settings_name_module_value_and_remedy(build, settings, message):
    module = build()
    with pytest.raises(ValueError, match=r'^part \(\w+\): ') as error:
        freeze(module, FreezePolicy(**settings), name='part')
    assert str(error.value).startswith(f'part ({type(module).__name__}): {message}')
    assert 'train' not in vars(module)
    assert all(p.requires_grad for p in module.parameters())


# Frozen stays frozen.


def sparse_input() -> tuple:
    coors = torch.cat([torch.randint(0, high, (300, 1)) for high in (2, 40, 16, 16)], dim=1)
    coors = coors.unique(dim=0)
    return torch.randn(len(coors), 4), coors, 2


def image() -> tuple:
    return (torch.randn(2, 3, 64, 64),)


def bev() -> tuple:
    return (torch.randn(2, 4, 16, 16),)


def levels() -> tuple:
    return ((torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)),)


def vovnet(**kwargs) -> VoVNet:
    settings = {'width': 0.125, 'out_features': ('stage5',), 'norm_eval': False, **kwargs}
    return VoVNet(spec_name='V-19-slim-eSE', **settings)


SPARSE_START = ('conv_input', 'encoder_layers.encoder_layer1')
TRAINED = {
    'ResNet': (resnet, image, ('conv1', 'bn1', 'layer1')),
    'VoVNet': (vovnet, image, ('stem', 'stage2')),
    'SparseEncoder': (
        sparse_encoder,
        sparse_input,
        SPARSE_START,
    ),
    'CmtSparseEncoder': (
        lambda: sparse_encoder(CmtSparseEncoder),
        sparse_input,
        SPARSE_START,
    ),
    'SECOND': (second, bev, ('blocks.0',)),
    'SECONDFPN': (second_fpn, levels, ('deblocks.0',)),
    'CPFPN': (cpfpn, levels, ('lateral_convs.0', 'fpn_convs.0')),
}


def flat(output) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)


@pytest.mark.parametrize('case', TRAINED)
def test_nothing_frozen_moves_in_training_and_all_else_does(case):
    build, make_input, roots = TRAINED[case]
    module = freeze(build(), FreezePolicy(frozen_stages=1))
    parent = nn.ModuleDict({'part': module})
    # The frozen parameters are in the optimizer on purpose, with weight decay.
    optimizer = torch.optim.SGD(parent.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = copy.deepcopy(module.state_dict())
    for _ in range(3):
        parent.train()
        optimizer.zero_grad()
        sum(x.square().mean() for x in flat(module(*make_input()))).backward()
        optimizer.step()
        parent.eval()
    below = tuple(f'{root}.' for root in roots)
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert not {name for name in moved if name.startswith(below)}
    assert moved == {name for name in before if not name.startswith(below)}


def test_the_whole_module_frozen_survives_the_parents_train():
    parent = nn.Sequential(freeze(second(), FreezePolicy(frozen=True)), nn.Dropout())
    parent.train()
    assert training(parent) == {'', '1'}
    assert parent.eval().train() is parent
    assert training(parent) == {'', '1'}
    module = parent[0]
    assert module.train() is module
    assert module.eval() is module


def test_train_leaves_gradients_to_whoever_set_them_later():
    module = freeze(second(), FreezePolicy(frozen=True))
    module.blocks[1].requires_grad_(True)
    module.train()
    assert trainable(module) == names_below(module, 'blocks.1')
    assert training(module) == set()


def test_freezing_drops_the_gradient_at_hand():
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


def test_a_policy_that_is_refused_leaves_the_first_in_place():
    module = freeze(second(), FreezePolicy(frozen_stages=1))
    with pytest.raises(ValueError, match='frozen_stages 3'):
        freeze(module, FreezePolicy(frozen_stages=3))
    assert trainable(module.train()) == names_below(module, 'blocks.1')
    assert not module.blocks[0].training


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_kept_by_its_own(copied):
    model = nn.ModuleDict({'part': freeze(second(), FreezePolicy(frozen_stages=1))}).eval()
    twin = copied(model)
    twin.train()
    assert set(frozen_modules(twin)) == set(frozen_modules(model))
    assert not twin['part'].blocks[0].training
    assert twin['part'].blocks[1].training
    assert training(model) == set()
    freeze(twin['part'], FreezePolicy())
    assert trainable(model) == names_below(model, 'part.blocks.1')
    assert len(frozen_modules(model)) > 0


def test_state_dict_is_unchanged():
    module = second()
    before = list(module.state_dict())
    assert list(freeze(module, FreezePolicy(frozen=True)).state_dict()) == before


def test_norms_that_are_replaced_later_stay_frozen():
    module = freeze(resnet(), FreezePolicy(frozen_stages=0, norm_eval=True))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(module)).train()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    assert len(norms) == 20
    assert not any(norm.training for norm in norms.values())
    assert eval_norms(model) == norms
    assert frozen_modules(model)['0.bn1'] is norms['0.bn1']
    assert not norms['0.bn1'].weight.requires_grad


# norm_eval.


def test_norm_eval_keeps_norms_alone_in_evaluation():
    model = nn.ModuleDict({'part': freeze(second(), FreezePolicy(norm_eval=True))}).train()
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {'part.blocks.0.1', 'part.blocks.0.4', 'part.blocks.1.1', 'part.blocks.1.4'}
    assert training(model) == {n for n, _ in model.named_modules()} - norms
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert set(eval_norms(model)) == norms
    assert frozen_modules(model) == {}


def test_norms_are_those_with_running_statistics():
    module = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.InstanceNorm1d(2),
        nn.LayerNorm(2),
        nn.GroupNorm(1, 2),
        nn.SyncBatchNorm(2),
    )
    freeze(module, FreezePolicy(norm_eval=True)).train()
    assert training(module) == {'', '2', '3', '4'}


def test_norm_eval_without_norms_does_nothing():
    module = freeze(transformer(), FreezePolicy(norm_eval=True)).train()
    assert training(module) == {name for name, _ in module.named_modules()}
    assert eval_norms(module) == {}


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


# A ResNet that was built with its own frozen_stages.


def test_own_frozen_stages_count_where_the_policy_freezes_nothing():
    module = freeze(resnet(frozen_stages=1), FreezePolicy(norm_eval=True))
    assert {'conv1', 'bn1', 'layer1.0.conv1'} <= set(frozen_modules(module))
    assert trainable(module) == names_below(module, 'layer2', 'layer3', 'layer4')


def test_a_policy_may_freeze_more_than_the_own_frozen_stages():
    module = freeze(resnet(frozen_stages=1), FreezePolicy(freeze_ratio=0.5))
    assert trainable(module.train()) == names_below(module, 'layer3', 'layer4')


@pytest.mark.parametrize(
    'settings',
    [
        dict(unfreeze_layers=[0]),
        dict(frozen_stages=0),
        dict(frozen=True, always_trainable=['layer1.0.bn1']),
    ],
)
def test_own_frozen_stages_cannot_be_let_train(settings):
    with pytest.raises(ValueError, match=r'ResNet was built with its own frozen_stages 1, .*=-1$'):
        freeze(resnet(frozen_stages=1), FreezePolicy(**settings))
