"""What policies freeze, and what a wrong setting says.

Every strategy is compared with the exact set of names that train.
"""

import itertools

import pytest
from freezable import (
    cpfpn,
    dinov2,
    names_below,
    resnet,
    second,
    second_fpn,
    siglip,
    sparse_encoder,
    trainable,
    training,
    transformer,
)
from mmdet3d.models import HardSimpleVFE

from projects.cmt_aqr.freezing import FreezePolicy, freeze, frozen_modules
from projects.cmt_aqr.transformer import CmtTransformer


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
        'has 12 layers, 0 to 11 from the input or -1 to -12 from the output'
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
        f'img_backbone (ResNet): {won[0]} {won[1]!r} applies; ignored: {lost[0]} {lost[1]!r}'
    ]


def test_all_that_is_ignored_stands_in_one_line(logged):
    freeze(second(), FreezePolicy(freeze_layers=[0], freeze_ratio=1.0, frozen=True))
    assert logged == ['SECOND: freeze_layers [0] applies; ignored: freeze_ratio 1.0, frozen True']


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
            'frozen_stages 0 freezes the stem, but the module has none: -1 freezes nothing, '
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
            'freeze_layers 2, -3 out of range: it has 2 layers, 0 to 1 from the input or '
            '-1 to -2 from the output',
        ),
        # An ignored setting is checked too.
        (second, dict(freeze_layers=[0], frozen_stages=3), 'frozen_stages 3 is not in -1 to 2: '),
        (
            second,
            dict(freeze_layers=[1], unfreeze_layers=[0, -1]),
            'freeze_layers and unfreeze_layers share layer 1; list it in one of them',
        ),
        (second, dict(freeze_ratio=1.01), 'freeze_ratio 1.01 must be a number from 0 to 1'),
        (second, dict(freeze_ratio=-0.1), 'freeze_ratio -0.1 must be a number from 0 to 1'),
        (second, dict(freeze_ratio=float('nan')), 'freeze_ratio nan must be a number from 0 to 1'),
        (second, dict(freeze_ratio=True), 'freeze_ratio True must be a number from 0 to 1'),
        (second, dict(freeze_ratio='0.5'), "freeze_ratio '0.5' must be a number from 0 to 1"),
        (second, dict(freeze_layers='1'), "freeze_layers '1' must be a list of layer indices"),
        (second, dict(freeze_layers=1), 'freeze_layers 1 must be a list of layer indices'),
        (
            second,
            dict(unfreeze_layers=[0.0]),
            'unfreeze_layers [0.0] must be a list of',
        ),
        (second, dict(frozen_stages=True), 'frozen_stages True must be an integer'),
        (second, dict(frozen_stages=1.0), 'frozen_stages 1.0 must be an integer'),
        (second, dict(frozen='yes'), "frozen 'yes' must be True or False"),
        (second, dict(frozen=None), 'frozen None must be True or False'),
        (second, dict(norm_eval=1), 'norm_eval 1 must be True or False'),
        (
            second,
            dict(always_trainable='blocks'),
            "always_trainable 'blocks' must be a list of",
        ),
        (second, dict(always_trainable=None), 'always_trainable None must be a list of'),
        (
            second,
            dict(frozen=True, always_trainable=['blocks', 'block']),
            "always_trainable 'block' matches no submodule; SECOND contains blocks",
        ),
        (
            lambda: HardSimpleVFE(4),
            dict(frozen_stages=1),
            'frozen_stages 1 needs the ordered layers of the module, which are unknown for '
            'HardSimpleVFE; use frozen=True, or register them with '
            'projects.cmt_aqr.freezing.register_layers (known: CmtTransformer, FPN, ',
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
