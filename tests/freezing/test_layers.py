"""Which submodules count as stem, layers and rest, for every class the project freezes."""

import pytest
import torch
from freezable import (
    cpfpn,
    dinov2,
    resnet,
    second,
    second_fpn,
    siglip,
    sparse_encoder,
    transformer,
    vovnet,
)
from mmdet.models import FPN, ResNetV1d
from mmdet3d.models import HardSimpleVFE
from torch import nn

from projects.cmt_aqr.backbones import CmtSparseEncoder
from projects.cmt_aqr.freezing import FreezePolicy, Layers, freeze, layers, register_layers
from projects.cmt_aqr.freezing.layers import find_layers


def one_each(pattern: str, indices: range) -> tuple[tuple[str], ...]:
    return tuple((pattern.format(i),) for i in indices)


RESNET_STEM = ('conv1', 'bn1', 'relu', 'maxpool')
TWO_STAGES = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
SPARSE_ENCODER = Layers(
    stem=('conv_input',),
    layers=(*one_each('encoder_layers.encoder_layer{}', range(1, 5)), ('conv_out',)),
)
LEVELS = (('lateral_convs.0', 'fpn_convs.0'), ('lateral_convs.1', 'fpn_convs.1'))

EXPECTED = {
    'ResNet': (resnet, Layers(stem=RESNET_STEM, layers=one_each('layer{}', range(1, 5)))),
    'ResNet of two stages': (
        lambda: resnet(**TWO_STAGES),
        Layers(stem=RESNET_STEM, layers=one_each('layer{}', range(1, 3))),
    ),
    'ResNet with a deep stem': (
        lambda: ResNetV1d(depth=18, base_channels=4),
        Layers(stem=('stem', 'maxpool'), layers=one_each('layer{}', range(1, 5))),
    ),
    'VoVNet': (vovnet, Layers(stem=('stem',), layers=one_each('stage{}', range(2, 6)))),
    'SparseEncoder': (sparse_encoder, SPARSE_ENCODER),
    'CmtSparseEncoder': (lambda: sparse_encoder(CmtSparseEncoder), SPARSE_ENCODER),
    'SECOND': (second, Layers(layers=one_each('blocks.{}', range(2)))),
    'SECONDFPN': (second_fpn, Layers(layers=one_each('deblocks.{}', range(2)))),
    'CPFPN': (cpfpn, Layers(layers=LEVELS)),
    'FPN from level 1 with an extra level': (
        lambda: FPN([4, 8, 8], 4, num_outs=3, start_level=1, add_extra_convs='on_output'),
        Layers(layers=LEVELS, rest=('fpn_convs.2',)),
    ),
    'CmtTransformer': (
        transformer,
        Layers(layers=one_each('decoder.layers.{}', range(3)), rest=('decoder.post_norm',)),
    ),
    'DINOv2': (
        dinov2,
        Layers(
            stem=('embeddings',),
            layers=one_each('encoder.layer.{}', range(12)),
            rest=('layernorm',),
        ),
    ),
    'SigLIP': (
        siglip,
        Layers(
            stem=('embeddings',),
            layers=one_each('encoder.layers.{}', range(12)),
            rest=('post_layernorm', 'head'),
        ),
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
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    assert find_layers(ResNetModel(config)) is None


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
    with pytest.raises(ValueError, match='layers of Pair are already registered'):
        register_layers('Pair')(find)


@pytest.mark.usefixtures('_empty_registry')
def test_layers_that_leave_out_a_parameter_are_refused():
    register_layers('Pair')(lambda module: Layers(layers=(('first',), ('second',))))
    with pytest.raises(ValueError, match='for Pair omit its parameters token'):
        find_layers(Pair())
