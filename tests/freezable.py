"""Tiny modules to freeze, and what of them trains."""

import torch
from mmdet.models import ResNet
from mmdet3d.models import SECOND, SECONDFPN, SparseEncoder
from torch import nn

from projects.cmt_aqr.backbones import VoVNet
from projects.cmt_aqr.necks import CPFPN
from projects.cmt_aqr.transformer import CmtTransformer

VIT = dict(hidden_size=2, num_attention_heads=1, num_hidden_layers=12, image_size=28)


def dinov2() -> nn.Module:
    """Twelve layers; `transformers` takes seconds to import, so only where it is used."""
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config(**VIT, mlp_ratio=1))


def siglip() -> nn.Module:
    """Twelve layers."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**VIT, intermediate_size=2))


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


def bev() -> tuple:
    """Input of `second`."""
    return (torch.randn(2, 4, 16, 16),)


def trainable(module: nn.Module) -> set[str]:
    """Names of the parameters that take a gradient."""
    return {name for name, p in module.named_parameters() if p.requires_grad}


def names_below(module: nn.Module, *roots: str) -> set[str]:
    """Names of the parameters of the submodules `roots`."""
    prefixes = tuple(f'{root}.' for root in roots)
    return {name for name, _ in module.named_parameters() if name.startswith(prefixes)}


def training(module: nn.Module) -> set[str]:
    """Names of the submodules in training mode."""
    return {name for name, m in module.named_modules() if m.training}
