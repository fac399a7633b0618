"""How several maps become one."""

import pytest
import torch
from torch.testing import assert_close

from projects.cmt_aqr.necks import MixedEncoders, WeightedLayers


def test_weighted_layers_start_as_the_mean_and_learn():
    module = WeightedLayers(num_layers=3)
    maps = [torch.randn(2, 4, 3, 5) for _ in range(3)]
    features, layer = module(maps)
    assert layer is None
    assert_close(features, torch.stack(maps).mean(dim=0))
    module.logits.data[1] = 50
    assert_close(module(maps).features, maps[1])
    features.square().sum().backward()
    assert module.logits.grad.abs().min() > 0
    with pytest.raises(ValueError, match='WeightedLayers takes 3 maps, but the backbone gives 2'):
        module(maps[:2])


def test_mixed_encoders():
    module = MixedEncoders(channels=[4, 6], out_channels=5)
    x = torch.randn(2, 10, 3, 3)
    first, second = (
        project(part.movedim(1, -1)).movedim(-1, 1)
        for project, part in zip(module.projections, x.split([4, 6], dim=1), strict=True)
    )
    assert_close(module([x]).features, (first + second) / 2)
    module.logits.data[0] = 50
    assert_close(module([x]).features, first)
    module([x]).features.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    with pytest.raises(ValueError, match='MixedEncoders takes 1 maps, but the backbone gives 2'):
        module([x, x])
