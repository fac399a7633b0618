"""The router in the head: neutral at the start, its loss, and batches that lack a sensor."""

import numpy as np
import pytest
import torch
from small_head import (
    GRID,
    RANGE,
    aqr_config,
    assert_equal_boxes,
    make_head,
    random_batch,
    routed_head,
    spy,
    wake,
    with_health,
)

from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.geometry import VoxelGrid, project, unit_to_metres

FORMS = {
    'gate': {},
    'bias': {'routing': 'BiasRouting'},
    'local': {'routing': 'BiasRouting', 'scope': 'local'},
    'both': {'routing': 'BiasRouting', 'scope': 'both'},
    'mix': {'routing': 'MixRouting'},
}
every_form = pytest.mark.parametrize('form', FORMS)
every_grouping = pytest.mark.parametrize('groups', ['modality', 'camera'])
every_sensor_missing = pytest.mark.parametrize('missing', ['lidar', 'camera'])


@every_form
@every_grouping
@pytest.mark.parametrize('activation', ['tanh', 'sigmoid', 'softmax'])
@torch.no_grad()
def test_a_new_router_leaves_every_box_as_it_was(activation, form, groups):
    weights = {'activation': activation, 'groups': groups}
    routed, plain = routed_head(**FORMS[form], weights=weights).eval(), make_head().eval()
    missing, unexpected = routed.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split('.')[0] for name in missing} == {'router'}
    seen = spy(routed.transformer)
    batch = random_batch()
    # Weights are zero bit for bit, but another kernel may round differently.
    assert_equal_boxes(routed.predict(*batch), plain.predict(*batch))
    assert not seen['routing'].weights.any()


@every_form
@every_grouping
def test_a_router_trains_with_denoising_queries(form, groups):
    head = routed_head(**FORMS[form], weights={'groups': groups})
    wake(head)
    seen = spy(head.transformer)
    sum(head.loss(*random_batch()).values()).backward()
    assert {name for name, p in head.named_parameters() if p.grad is None} == set()
    assert all(p.grad.any() for p in head.router.attention_bias_generator.parameters())
    denoising = seen['routing'].weights[:, : -head.num_query]
    assert denoising.shape[1] == 24  # eight copies of at most three boxes
    assert denoising.any()


def test_a_router_that_suppresses_lidar_hides_its_tokens():
    """With a bias beyond its usual limit the boxes are those without any LiDAR token."""
    head = routed_head('BiasRouting').eval()
    torch.nn.init.constant_(head.router.aqr_weight_generator.to_weight['lidar'].bias, -50.0)
    head.router.attention_bias_generator.limit = 1e4
    torch.nn.init.constant_(head.router.attention_bias_generator.bias_scale, 1e4)
    bev, images, samples = random_batch()
    assert_equal_boxes(
        head.predict(bev, images, samples), head.predict(None, images, samples), tolerance=1e-4
    )


@every_sensor_missing
@every_grouping
@pytest.mark.parametrize('form', ['both', 'gate', 'mix'])
def test_a_router_takes_a_batch_without_a_sensor(missing, groups, form):
    head = routed_head(**FORMS[form], weights={'groups': groups, 'activation': 'softmax'})
    wake(head)
    bev, images, samples = random_batch()
    inputs = (None, images) if missing == 'lidar' else (bev, None)
    losses = head.loss(*inputs, samples)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize('form', ['both', 'gate', 'mix'])
def test_a_routed_sample_with_fewer_cameras_equals_itself_alone(form):
    head = routed_head(**FORMS[form], weights={'groups': 'camera'}).eval()
    wake(head)
    bev, images, samples = random_batch((2, 2))
    samples[0].set_metainfo({'lidar2img': samples[0].metainfo['lidar2img'][:1]})
    batched = head.predict(bev, images, samples)[:1]
    alone = head.predict(bev[:1], images[:1, :1], samples[:1])
    assert_equal_boxes(batched, alone, tolerance=1e-4)


def reliable_head(**weights):
    return routed_head(weights=weights, reliability_weight=1.0)


def test_a_reliability_loss_is_one_more_loss_and_zero_for_new_weights_and_healthy_input():
    plain = routed_head().loss(*random_batch())
    losses = reliable_head().loss(*with_health(random_batch()))
    assert losses.keys() - plain.keys() == {'loss_reliability'}
    assert losses['loss_reliability'].item() == pytest.approx(0, abs=1e-12)


@every_grouping
def test_the_reliability_loss_of_a_new_router_is_the_squared_damage(groups):
    bev, images, samples, health = with_health(random_batch(), camera=0.5)
    cameras = batch_cameras([sample.metainfo for sample in samples], images)
    for factor in (1.0, 4.0):
        head = routed_head(weights={'groups': groups}, reliability_weight=factor)
        loss = head.loss(bev, images, samples, health)['loss_reliability']
        points = unit_to_metres(head.reference(2, None), RANGE)
        seen = project(points, cameras.lidar2img, cameras.image_shape).visible  # (B, V, Q)
        seen = seen.any(dim=1) if groups == 'modality' else seen
        # All of the 24 queries see a BEV window; the cameras see some.
        expected = 0.25 * seen.sum() / (seen.sum() + 2 * 24)
        assert float(loss) == pytest.approx(factor * float(expected), rel=1e-5)


def test_the_reliability_loss_follows_the_map_at_the_place_of_the_query():
    """All queries in the BEV cell of column 6 and row 2, whose window spans three cells."""
    health = torch.ones(8, 8)
    health[1:4, 5:8] = torch.tensor([0.0, 0.5, 1.0])  # rows run along y, columns along x
    head = reliable_head()
    with torch.no_grad():
        head.reference_points.weight.copy_(torch.tensor([6.5 / 8, 2.5 / 8, 0.5]))
    bev, _, samples, health = with_health(random_batch(), lidar=health)
    loss = head.loss(bev, None, samples, health)['loss_reliability']
    assert loss.item() == pytest.approx(0.25)  # mean health 0.5, target -0.5


def test_the_reliability_loss_is_computed_in_full_precision():
    batch = with_health(random_batch(), lidar=1 / 3, camera=1 / 7)
    losses = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            torch.manual_seed(1)  # of the noise of denoising queries
            losses.append(reliable_head().loss(*batch)['loss_reliability'])
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)


def test_the_reliability_loss_trains_the_router_and_nothing_else():
    head = reliable_head()
    batch = with_health(random_batch(), lidar=0.0, camera=0.5)
    head.loss(*batch)['loss_reliability'].backward()
    reached = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {
        f'router.aqr_weight_generator.to_weight.{sensor}.{kind}'
        for sensor in ('lidar', 'camera')
        for kind in ('weight', 'bias')
    }  # the first step moves the layer that is zero; behind it all wait for it
    assert (head.router.aqr_weight_generator.to_weight['lidar'].bias.grad > 0).all()


def test_missing_health_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r'has no health.*aqr\.reliability_weight=0'):
        reliable_head().loss(*random_batch())


@every_sensor_missing
def test_a_reliability_loss_takes_a_batch_without_a_sensor(missing):
    head = reliable_head(groups='camera', activation='softmax')
    bev, images, samples, health = with_health(random_batch(), lidar=0.5, camera=0.0)
    inputs = (None, images) if missing == 'lidar' else (bev, None)
    losses = head.loss(*inputs, samples, health)
    assert losses['loss_reliability'].item() == pytest.approx(0, abs=1e-7)  # neutral without choice
    sum(losses.values()).backward()


def no_cameras(samples):
    for sample in samples:
        sample.set_metainfo({'lidar2img': np.zeros((0, 4, 4))})


def beyond_every_map(head, samples):
    """A grid that ends before the queries begin, and cameras a kilometre behind which all is."""
    head.router.voxel_grid = VoxelGrid(voxel_size=(0.1, 0.1, 8.0), shape=(1, 64, 64))
    torch.nn.init.constant_(head.reference_points.weight, 0.9)
    for sample in samples:
        away = sample.metainfo['lidar2img'].copy()
        away[:, 2, 3] -= 1000
        sample.set_metainfo({'lidar2img': away})


def test_a_reference_point_beyond_the_range_looks_from_the_border():
    head = routed_head()
    bev, images, samples = random_batch()
    cameras = batch_cameras([sample.metainfo for sample in samples], like=images)
    layout = head.tokenize(bev, images, cameras).layout
    beyond = torch.tensor([[[1.016, 0.5, 0.5], [-0.02, 1.3, 0.5]]]).expand(2, -1, -1)
    found = head.router.find_windows(beyond, cameras, layout)
    due = head.router.find_windows(beyond.clamp(0, 1), cameras, layout)
    for one, other in zip(found, due, strict=True):
        assert torch.equal(one.inside, other.inside)
    assert found[0].inside.any(dim=-1).all()


OPTIONS = {
    'bias': {'routing': 'BiasRouting'},
    'windows': {'routing': 'BiasRouting', 'scope': 'both', 'weights': {'groups': 'camera'}},
    'softmax': {'weights': {'activation': 'softmax', 'groups': 'camera'}},
    'gate': {'weights': {'activation': 'sigmoid'}},
    'mix': {'routing': 'MixRouting', 'weights': {'groups': 'camera'}},
    'modulation': {'routing': None, 'type': 'FeatureModulationRouter'},
}


@pytest.mark.parametrize(
    'case', ['whole', 'no camera', 'one without cameras', 'no bev', 'no image', 'outside']
)
@pytest.mark.parametrize('form', OPTIONS)
def test_a_router_is_safe_in_half_precision(case, form):
    """No overflow, no NaN, with features as large as they get, weights at their limit and pads."""
    head = routed_head(**OPTIONS[form])
    for linear in head.router.aqr_weight_generator.to_weight.values():
        torch.nn.init.normal_(linear.weight, std=100.0)
    bev, images, samples = random_batch((2, 2))  # without padded denoising queries, at a corner
    if case == 'no camera':
        no_cameras(samples)
    elif case == 'one without cameras':
        no_cameras(samples[1:])
    elif case == 'outside':
        beyond_every_map(head, samples)
    bev = None if case == 'no bev' else 100 * bev
    images = None if case == 'no image' else 100 * images
    seen = spy(head.router.aqr_weight_generator)
    with torch.autocast('cpu', torch.bfloat16):
        losses = head.loss(bev, images, samples)
    assert any(part.inside.any() for part in seen['windows']) == (case != 'outside')
    assert all(torch.isfinite(value) for value in losses.values()), losses
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'modalities': ['lidar']},
            r"routes between \['lidar', 'camera'\], but modalities is \['l",
        ),
        ({'voxel_grid': None}, 'aqr needs voxel_grid'),
        ({'aqr': aqr_config(windows={'lidar': 3})}, "windows is {'lidar': 3}; it must give"),
        ({'aqr': aqr_config(windows={'lidar': 3, 'camera': 0})}, 'cells from 1 on'),
        ({'aqr': aqr_config(reliability_weight=-1)}, 'reliability_weight is -1; it must be 0'),
    ],
)
def test_a_wrong_router_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**{'aqr': aqr_config(), 'voxel_grid': GRID, **change})


def test_the_extent_of_the_map_is_along_y_and_x():
    head = routed_head()
    head.router.point_cloud_range = (-54.0, -27.0, -5.0, 54.0, 27.0, 3.0)
    head.router.voxel_grid = VoxelGrid(voxel_size=(0.5, 0.25, 8.0), shape=(1, 216, 108))
    bev, images, samples = random_batch()
    cameras = batch_cameras([sample.metainfo for sample in samples], like=images)
    layout = head.tokenize(bev, images, cameras).layout
    rows, columns = layout.bev
    cell_x, cell_y = head.router.voxel_grid.cell_size(layout.bev)
    extent = head.router._bev_extent(layout)
    assert extent == pytest.approx((rows * cell_y / 54, columns * cell_x / 108))
    assert extent[0] != extent[1]
