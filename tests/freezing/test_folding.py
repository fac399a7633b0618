"""Folding removes the norms behind convolutions and preserves the outputs."""

import pytest
import torch
from freezable import PARTS, as_list, photo, resnet, sparse_encoder, voxels, with_statistics
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from projects.cmt_aqr.backbones import VoVNet
from projects.cmt_aqr.freezing.folding import fold_norms

MODULES = {
    **PARTS,
    'ResNet with a deep stem': (lambda: resnet(deep_stem=True, avg_down=True), photo),
    'depthwise VoVNet': (lambda: VoVNet(spec_name='V-19-slim-dw-eSE', width=0.125), photo),
    'SparseEncoder of residual blocks': (lambda: sparse_encoder(block_type='basicblock'), voxels),
}


def largest(tensors) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)


@pytest.mark.parametrize('name', MODULES)
@torch.no_grad()
def test_all_norms_are_folded_and_the_outputs_are_the_same(name):
    make, make_input = MODULES[name]
    module, inputs = with_statistics(make()), make_input()
    module.eval()  # mmdet's ResNet returns nothing here
    expected = as_list(module(*inputs))
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]

    assert fold_norms(module) == len(norms) > 0
    assert not any(isinstance(m, _BatchNorm) for m in module.modules())
    found = as_list(module(*inputs))
    assert largest(expected) > 0.1
    changes = [a - b for a, b in zip(found, expected, strict=True)]
    assert largest(changes) < 1e-5 * largest(expected)


@pytest.mark.parametrize(
    'module',
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)),
        nn.ModuleList([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(3)]),
    ],
    ids=['not adjacent', 'before', 'group norm', 'no statistics', 'grouped transposed', 'channels'],
)
def test_other_norms_stay(module):
    kinds = [type(m) for m in module]
    assert fold_norms(module.eval()) == 0
    assert [type(m) for m in module] == kinds
