"""How several maps become one."""

import pytest
import torch
from torch.testing import assert_close

from projects.cmt_aqr.auxiliary_losses import take_auxiliary_losses
from projects.cmt_aqr.necks import AdaptiveLayers, MixedEncoders, WeightedLayers


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


def adaptive(**options) -> AdaptiveLayers:
    module = AdaptiveLayers(num_layers=3, channels=4, **options)
    module.has_trials = True
    return module


def test_the_classifier_learns_the_labels():
    """Bright images want the first layer, and dark ones the last; in testing each gets its own."""
    module = adaptive(top_k=3)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for step in range(60):
        module.label = torch.tensor(2 * (step % 2))
        maps = maps_of(brightness=[1 - 2.0 * (step % 2)] * 4)
        features, layer = module(maps)
        assert_close(features, maps[2 * (step % 2)])
        assert layer.tolist() == [2 * (step % 2)] * 4
        optimizer.zero_grad()
        loss = take_auxiliary_losses(module)['loss_layer']
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * 0.2  # weight times entropy
    assert module.chosen.take() == [0.5, 0, 0.5]
    module.label = None
    module.eval()
    maps = maps_of(brightness=[1.0, -1.0])
    features, layer = module(maps)
    assert layer.tolist() == [0, 2]
    assert_close(features, torch.stack([maps[0][0], maps[2][1]]))
    assert module.chosen.take() == [0, 0, 0]


def maps_of(brightness: list[float]) -> list[torch.Tensor]:
    light = torch.tensor(brightness).view(-1, 1, 1, 1) * torch.tensor([2.0, -1, 1, 0]).view(4, 1, 1)
    return [light + 0.1 * torch.randn(len(brightness), 4, 3, 5) for _ in range(3)]


def test_candidates_are_the_most_probable_layers_of_the_batch():
    module = adaptive(top_k=2)
    module.logits = lambda maps: torch.tensor([[0.0, 3, 2], [0, 3, 1], [3, 0, 2.9]])
    assert module.candidates([]).tolist() == [1, 2]


def test_without_a_label_nothing_is_learned():
    module = adaptive().train()
    module(maps_of(brightness=[1.0, -1.0]))
    take_auxiliary_losses(module)['loss_layer'].backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
