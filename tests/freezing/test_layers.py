"""Which submodules count as stem, layers and rest, for every class the project freezes."""

import pytest
import torch
from mmdet.models import FPN, ResNet, ResNetV1d
from mmdet3d.models import SECOND, SECONDFPN, HardSimpleVFE, SparseEncoder
from torch import nn

from projects.cmt_aqr.backbones import CmtSparseEncoder, VoVNet
from projects.cmt_aqr.freezing import FreezePolicy, Layers, freeze, layers, register_layers
from projects.cmt_aqr.freezing.layers import find_layers
from projects.cmt_aqr.necks import CPFPN
from projects.cmt_aqr.transformer import CmtTransformer

transformers = pytest.importorskip('transformers')

RESNET_LAYERS = (('layer1',), ('layer2',), ('layer3',), ('layer4',))
SPARSE = dict(in_channels=5, sparse_shape=[21, 32, 32])
SPARSE_LAYERS = Layers(
    stem=('conv_input',),
    layers=(
        ('encoder_layers.encoder_layer1',),
        ('encoder_layers.encoder_layer2',),
        ('encoder_layers.encoder_layer3',),
        ('encoder_layers.encoder_layer4',),
        ('conv_out',),
    ),
)
VIT_SIZE = dict(hidden_size=4, num_attention_heads=2, num_hidden_layers=2, image_size=28)
VIT_LAYERS = (('encoder.layer.0',), ('encoder.layer.1',))
VISION_LAYERS = (('encoder.layers.0',), ('encoder.layers.1',))


def dinov2() -> nn.Module:
    return transformers.Dinov2Model(transformers.Dinov2Config(**VIT_SIZE, mlp_ratio=1))


def siglip() -> nn.Module:
    config = transformers.SiglipVisionConfig(**VIT_SIZE, intermediate_size=4)
    return transformers.SiglipVisionModel(config)


EXPECTED = {
    'ResNet': (
        lambda: ResNet(depth=18, base_channels=4),
        Layers(stem=('conv1', 'bn1', 'relu', 'maxpool'), layers=RESNET_LAYERS),
    ),
    'ResNet of two stages': (
        lambda: ResNet(
            18,
            base_channels=4,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
        ),
        Layers(stem=('conv1', 'bn1', 'relu', 'maxpool'), layers=RESNET_LAYERS[:2]),
    ),
    'ResNetV1d': (
        lambda: ResNetV1d(depth=18, base_channels=4),
        Layers(stem=('stem', 'maxpool'), layers=RESNET_LAYERS),
    ),
    'VoVNet': (
        lambda: VoVNet(spec_name='V-19-slim-eSE', width=0.125),
        Layers(stem=('stem',), layers=(('stage2',), ('stage3',), ('stage4',), ('stage5',))),
    ),
    'SparseEncoder': (lambda: SparseEncoder(**SPARSE), SPARSE_LAYERS),
    'CmtSparseEncoder': (lambda: CmtSparseEncoder(**SPARSE), SPARSE_LAYERS),
    'SECOND': (
        lambda: SECOND(4, out_channels=[4, 4], layer_nums=[1, 1], layer_strides=[1, 2]),
        Layers(layers=(('blocks.0',), ('blocks.1',))),
    ),
    'SECONDFPN': (
        lambda: SECONDFPN(in_channels=[4, 4], out_channels=[4, 4], upsample_strides=[1, 2]),
        Layers(layers=(('deblocks.0',), ('deblocks.1',))),
    ),
    'CPFPN': (
        lambda: CPFPN(in_channels=[4, 8], out_channels=4, num_outs=2),
        Layers(layers=(('lateral_convs.0', 'fpn_convs.0'), ('lateral_convs.1', 'fpn_convs.1'))),
    ),
    'FPN from level 1 with an extra level': (
        lambda: FPN([4, 8, 8], 4, num_outs=3, start_level=1, add_extra_convs='on_output'),
        Layers(
            layers=(('lateral_convs.0', 'fpn_convs.0'), ('lateral_convs.1', 'fpn_convs.1')),
            rest=('fpn_convs.2',),
        ),
    ),
    'CmtTransformer': (
        lambda: CmtTransformer(8, num_layers=2, num_heads=2, feedforward_channels=8),
        Layers(layers=(('decoder.layers.0',), ('decoder.layers.1',)), rest=('decoder.post_norm',)),
    ),
    'DINOv2': (dinov2, Layers(stem=('embeddings',), layers=VIT_LAYERS, rest=('layernorm',))),
    'SigLIP': (
        siglip,
        Layers(stem=('embeddings',), layers=VISION_LAYERS, rest=('post_layernorm', 'head')),
    ),
}


@pytest.mark.parametrize('case', EXPECTED)
def test_layers(case):
    build, expected = EXPECTED[case]
    assert find_layers(build()) == expected


@pytest.mark.parametrize('module', [HardSimpleVFE(4), nn.Linear(1, 1)])
def test_other_classes_have_none(module):
    assert find_layers(module) is None


def test_transformers_model_without_a_stack_has_none():
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    assert find_layers(transformers.ResNetModel(config)) is None


@pytest.fixture
def _empty_registry(monkeypatch):
    monkeypatch.setattr(layers, '_FINDERS', {})


class Pair(nn.Module):
    """A stem that is a parameter of its own, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)


class DerivedPair(Pair):
    pass


@pytest.mark.usefixtures('_empty_registry')
def test_register_layers():
    @register_layers('Pair')
    def find(module: nn.Module) -> Layers:
        return Layers(stem=('token',), layers=(('first',), ('second',)))

    pair = freeze(DerivedPair(), FreezePolicy(frozen_stages=1))
    trainable = {name for name, p in pair.named_parameters() if p.requires_grad}
    assert trainable == {'second.weight', 'second.bias'}
    with pytest.raises(ValueError, match='layers of Pair are registered already'):
        register_layers('Pair')(find)


@pytest.mark.usefixtures('_empty_registry')
def test_layers_that_leave_out_a_parameter_are_refused():
    register_layers('Pair')(lambda module: Layers(layers=(('first',), ('second',))))
    with pytest.raises(ValueError, match='for Pair leave out its parameters token'):
        find_layers(Pair())
