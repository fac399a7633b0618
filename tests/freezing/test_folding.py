"""Norms end up in the convolutions before them, and the outputs stay what they were."""

import pytest
import torch
from freezable import cpfpn, resnet, second, second_fpn, sparse_encoder, vovnet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from projects.cmt_aqr.backbones import CmtSparseEncoder, VoVNet
from projects.cmt_aqr.freezing.folding import fold_norms


def with_statistics(module: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that do something."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    module.eval()  # mmdet's ResNet returns nothing here
    return module


def voxels() -> tuple:
    coors = torch.cat([torch.randint(0, high, (300, 1)) for high in (2, 40, 16, 16)], dim=1)
    coors = coors.unique(dim=0)
    return torch.randn(len(coors), 4), coors, 2


def image() -> tuple:
    return (torch.randn(2, 3, 64, 64),)


def bev() -> tuple:
    return (torch.randn(2, 4, 16, 16),)


def levels() -> tuple:
    return ((torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)),)


def depthwise_vovnet() -> VoVNet:
    return VoVNet(spec_name='V-19-slim-dw-eSE', width=0.125)


MODULES = {
    'ResNet': (resnet, image),
    'ResNet with a deep stem': (lambda: resnet(deep_stem=True, avg_down=True), image),
    'VoVNet': (vovnet, image),
    'depthwise VoVNet': (depthwise_vovnet, image),
    'CPFPN': (cpfpn, levels),
    'SparseEncoder': (sparse_encoder, voxels),
    'CmtSparseEncoder': (lambda: sparse_encoder(CmtSparseEncoder), voxels),
    'SparseEncoder of residual blocks': (
        lambda: sparse_encoder(block_type='basicblock'),
        voxels,
    ),
    'SECOND': (second, bev),
    'SECONDFPN': (second_fpn, levels),
}


def largest(tensors) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)


def listed(outputs) -> list[torch.Tensor]:
    return [outputs] if torch.is_tensor(outputs) else [*outputs]


@pytest.mark.parametrize('name', MODULES)
@torch.no_grad()
def test_all_norms_are_folded_and_the_outputs_are_the_same(name):
    make, make_input = MODULES[name]
    module, inputs = with_statistics(make()), make_input()
    expected = listed(module(*inputs))
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]

    assert fold_norms(module) == len(norms) > 0
    assert not any(isinstance(m, _BatchNorm) for m in module.modules())
    found = listed(module(*inputs))
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
