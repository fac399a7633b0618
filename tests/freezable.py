"""Tiny modules to freeze, inputs for them, and the names of their trainable parameters."""

import torch
from mmdet.models import ResNet
from mmdet3d.models import SECOND, SECONDFPN, SparseEncoder
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from projects.cmt_aqr.backbones import CmtSparseEncoder, VoVNet
from projects.cmt_aqr.necks import CPFPN
from projects.cmt_aqr.transformer import CmtTransformer

VIT = dict(hidden_size=2, num_attention_heads=1, num_hidden_layers=12, image_size=28)


def dinov2(**changes) -> nn.Module:
    """Twelve layers; `transformers` takes seconds to import, so only where it is used."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**{**VIT, 'mlp_ratio': 1, **changes}))


def siglip(**changes) -> nn.Module:
    """Twelve layers."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**{**VIT, 'intermediate_size': 2, **changes}))


def resnet(**kwargs) -> ResNet:
    return ResNet(depth=18, base_channels=4, **{'norm_eval': False, **kwargs})


def vovnet(**kwargs) -> VoVNet:
    settings = {'width': 0.125, 'out_features': ('stage5',), 'norm_eval': False, **kwargs}
    return VoVNet(spec_name='V-19-slim-eSE', **settings)


def second(**kwargs) -> SECOND:
    return SECOND(4, out_channels=[4, 4], layer_nums=[1, 1], layer_strides=[1, 2], **kwargs)


def second_fpn() -> SECONDFPN:
    return SECONDFPN(in_channels=[4, 4], out_channels=[4, 4], upsample_strides=[1, 2])


def cpfpn() -> CPFPN:
    norm = dict(type='BN')
    return CPFPN(in_channels=[4, 4], out_channels=4, num_outs=2, norm_cfg=norm)


def sparse_encoder(cls: type = SparseEncoder, **kwargs) -> SparseEncoder:
    return cls(
        in_channels=4,
        sparse_shape=[41, 16, 16],
        base_channels=4,
        output_channels=4,
        encoder_channels=((4,), (4, 4), (4, 4), (4, 4)),
        encoder_paddings=((1,), (1, 1), (1, 1), ((0, 1, 1), 1)),
        **kwargs,
    )


def transformer() -> CmtTransformer:
    return CmtTransformer(8, num_layers=3, num_heads=2, feedforward_channels=8)


def photo() -> tuple:
    return (torch.randn(2, 3, 64, 64),)


def bev() -> tuple:
    return (torch.randn(2, 4, 16, 16),)


def levels() -> tuple:
    return ((torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)),)


def voxels() -> tuple:
    coors = torch.cat([torch.randint(0, high, (300, 1)) for high in (2, 40, 16, 16)], dim=1)
    coors = coors.unique(dim=0)
    return torch.randn(len(coors), 4), coors, 2


PARTS = {
    'ResNet': (resnet, photo),
    'VoVNet': (vovnet, photo),
    'CPFPN': (cpfpn, levels),
    'SparseEncoder': (sparse_encoder, voxels),
    'CmtSparseEncoder': (lambda: sparse_encoder(CmtSparseEncoder), voxels),
    'SECOND': (second, bev),
    'SECONDFPN': (second_fpn, levels),
}
"""Every kind of part of the detector, with a function that makes its inputs."""


def with_statistics(module: nn.Module) -> nn.Module:
    """``module`` with norms that change values."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return module


def as_list(outputs) -> list[torch.Tensor]:
    """One tensor or several -> a list."""
    return [outputs] if torch.is_tensor(outputs) else [*outputs]


def trainable(module: nn.Module) -> set[str]:
    """Names of the parameters that require a gradient."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def names_below(module: nn.Module, *roots: str) -> set[str]:
    """Names of the parameters of the submodules `roots`."""
    prefixes = tuple(f'{root}.' for root in roots)
    return {name for name, _ in module.named_parameters() if name.startswith(prefixes)}


def training(module: nn.Module) -> set[str]:
    """Names of the submodules in training mode."""
    return {name for name, m in module.named_modules() if m.training}
