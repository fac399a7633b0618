"""Small vision towers of every family, on disk as `transformers` saves them."""

from pathlib import Path

import torch
from torch import nn

SIZES = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2)
SMALL = {
    'dinov2': dict(model_type='dinov2', patch_size=14, image_size=56, mlp_ratio=2, **SIZES),
    'dinov2_with_registers': dict(
        model_type='dinov2_with_registers',
        patch_size=14,
        image_size=56,
        mlp_ratio=2,
        num_register_tokens=4,
        **SIZES,
    ),
    'dinov3': dict(
        model_type='dinov3_vit',
        patch_size=16,
        intermediate_size=32,
        num_register_tokens=4,
        **SIZES,
    ),
    'siglip': dict(
        model_type='siglip_vision_model',
        patch_size=16,
        image_size=64,
        intermediate_size=32,
        **SIZES,
    ),
    'siglip2_naflex': dict(
        model_type='siglip2_vision_model',
        patch_size=16,
        num_patches=16,
        intermediate_size=32,
        **SIZES,
    ),
    'clip': dict(
        model_type='clip_vision_model',
        patch_size=16,
        image_size=64,
        intermediate_size=32,
        **SIZES,
    ),
}
"""Architectures by family, of four blocks and 16 channels."""


def make_tower(family: str, **changes) -> nn.Module:
    """The whole tower with random weights, none of which is zero."""
    from transformers import AutoConfig, AutoModel  # takes seconds to import

    torch.manual_seed(0)
    tower = AutoModel.from_config(AutoConfig.for_model(**{**SMALL[family], **changes})).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower


def save_tower(family: str, folder: Path, **changes) -> nn.Module:
    """The same, which is also written to a folder."""
    tower = make_tower(family, **changes)
    tower.save_pretrained(folder)
    return tower
