"""Widths of the projectors, and what they say of other widths."""

import pytest
import torch
from mmdet3d.registry import MODELS
from torch import nn
from torch.testing import assert_close


def projector(name: str, **options) -> nn.Module:
    return MODELS.build(dict(type=name, **{'in_channels': 6, 'out_channels': 4, **options}))


@pytest.mark.parametrize(
    ('name', 'widths'),
    [
        ('LinearProjector', [(6, 4)]),
        ('MLPProjector', [(6, 4), (4, 4)]),
        ('FusedMLPProjector', [(6, 24), (24, 4), (4, 4)]),
    ],
)
def test_each_token_is_projected_by_itself(name, widths):
    neck = projector(name)
    linear = [layer for layer in neck.layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == widths
    assert len(neck.layers) == 2 * len(widths) - 1
    x = torch.randn(2, 6, 3, 5)
    (out,) = neck([x])
    assert out.shape == (2, 4, 3, 5)
    assert_close(out[1, :, 2, 4], neck.layers(x[1, :, 2, 4]))


def test_several_maps_are_concatenated():
    neck = projector('LinearProjector', in_channels=12)
    maps = [torch.randn(1, 6, 2, 2), torch.randn(1, 6, 2, 2)]
    assert_close(neck(maps), neck([torch.cat(maps, dim=1)]))


def test_other_channels_than_configured():
    with pytest.raises(ValueError, match='in_channels=6, but gets 5 channels from 1 map'):
        projector('MLPProjector')([torch.randn(1, 5, 2, 2)])
    with pytest.raises(TypeError, match='in_chanels'):
        projector('MLPProjector', in_chanels=5)
