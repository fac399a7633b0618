"""Weights that scale the features: neutral at zero, in the right cells, without a leak of boxes."""

import pytest
import torch
from small_head import (
    assert_equal_boxes,
    make_head,
    random_batch,
    routed_head,
    spy,
    wake,
)

from projects.cmt_aqr.cameras import batch_cameras


def modulating_head(routing=None, **options):
    return routed_head(routing, type='FeatureModulationRouter', **options)


@torch.no_grad()
def test_zero_weights_leave_every_box_as_it_was():
    modulated, plain = modulating_head().eval(), make_head().eval()
    modulated.load_state_dict(plain.state_dict(), strict=False)
    seen = spy(modulated.transformer)
    batch = random_batch()
    assert_equal_boxes(modulated.predict(*batch), plain.predict(*batch), tolerance=0)
    assert seen['routing'] is None


@torch.no_grad()
def test_features_are_scaled_by_the_map_at_the_queries():
    head = modulating_head(sigma=100.0).eval()  # constant within a window
    torch.nn.init.constant_(head.router.aqr_weight_generator.to_weight['lidar'].bias, -100.0)
    head.reference_points.weight.fill_(0.5 + 1e-3)  # in the middle: cell (4, 4) of 8 x 8
    seen = spy(head.transformer)
    bev, images, samples = random_batch()
    head.predict(bev, images, samples)
    cameras = batch_cameras([sample.metainfo for sample in samples], images)
    expected = head.tokenize(bev, images, cameras).features.clone()
    scale = torch.ones(8, 8)
    scale[3:6, 3:6] = 0
    expected[:, :64] *= scale.flatten()[:, None]
    torch.testing.assert_close(seen['tokens'], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('routing', [None, 'BiasRouting'])
def test_it_trains_alone_and_beside_a_routing_form(routing):
    head = modulating_head(routing)
    wake(head)
    sum(head.loss(*random_batch()).values()).backward()
    assert {name for name, p in head.named_parameters() if p.grad is None} == set()
    assert all(p.grad.any() for p in head.router.aqr_weight_generator.to_weight.parameters())


@torch.no_grad()
def test_denoising_queries_leave_nothing_on_the_features_that_learned_ones_see():
    """They stand at the boxes: their weights, or their coverage, would give them away."""
    head = modulating_head().eval()
    wake(head)
    bev, images, samples = random_batch()
    metas = [sample.metainfo for sample in samples]
    denoising = head.make_denoising(head.ground_truth(samples), num_query=head.num_query)
    (alone,) = head(bev, images, metas).tasks
    (beside,) = head(bev, images, metas, denoising).tasks
    for name, value in alone.items():
        learned = beside[name][:, :, denoising.slots :]
        torch.testing.assert_close(learned, value, atol=1e-4, rtol=1e-5, msg=name)


def test_a_wrong_sigma_is_named():
    with pytest.raises(ValueError, match=r'aqr\.sigma is 0.0; it must be above 0'):
        modulating_head(sigma=0.0)
