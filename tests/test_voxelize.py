"""The voxelizer against mmcv's CPU operator, cloud by cloud and bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import Voxelization
from pretend_device import DEVICE, PretendDevice

from projects.cmt_aqr.voxelize import Voxelizer, group_equal

GRID = dict(voxel_size=[0.1, 0.1, 0.2], point_cloud_range=[-1.2, -0.8, -1.0, 1.2, 0.8, 1.0])
LIMITS = dict(max_num_points=3, max_voxels=(40, 60))


def mmcv_voxels(clouds, *, training, **options):
    """What mmcv's operator gives for each cloud, put together as MMDetection3D does."""
    options['max_voxels'] = tuple(options['max_voxels'])
    operator = Voxelization(**options).train(training)
    parts = [operator(cloud) for cloud in clouds]
    voxels, cells, num_points = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    cloud = torch.arange(len(clouds)).repeat_interleave(torch.tensor([len(p[0]) for p in parts]))
    coors = torch.cat([cloud[:, None].int(), cells], dim=1)
    return {'voxels': voxels, 'num_points': num_points, 'coors': coors}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def compare(clouds, *, training=False, **options):
    """Both on the same clouds; returns the voxels."""
    options = {**GRID, **LIMITS, **options}
    found = Voxelizer(**options).train(training)(clouds)
    assert_equal(found, mmcv_voxels(clouds, training=training, **options))
    return found


def random_cloud(points, spread=1.2, columns=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(points, columns, generator=random) - 1) * spread


@st.composite
def cases(draw):
    """Clouds on and around the borders of cells, and limits that some of them reach."""
    sizes = draw(st.lists(st.integers(0, 120), min_size=1, max_size=4))
    columns = draw(st.integers(3, 6))
    spread = draw(st.sampled_from([0.3, 1.2, 4.0]))
    clouds = [random_cloud(n, spread, columns, draw(st.integers(0, 2**31))) for n in sizes]
    if draw(st.booleans()):  # multiples of the voxel's side, and the floats next to them
        step = torch.tensor(0.1)
        clouds = [(cloud / step).round() * step for cloud in clouds]
        toward = draw(st.sampled_from([-torch.inf, 0.0, torch.inf]))
        if toward:
            clouds = [torch.nextafter(cloud, torch.tensor(toward)) for cloud in clouds]
    voxel_size = draw(st.lists(st.sampled_from([0.1, 0.15, 0.3, 0.7]), min_size=3, max_size=3))
    limits = dict(
        max_num_points=draw(st.integers(1, 6)),
        max_voxels=draw(st.tuples(st.integers(1, 80), st.integers(1, 80))),
    )
    return clouds, dict(limits, voxel_size=voxel_size, training=draw(st.booleans()))


@settings(deadline=None, max_examples=200)
@given(cases())
def test_equals_mmcv_for_any_clouds(case):
    clouds, options = case
    compare(clouds, **options)


@pytest.mark.parametrize('sizes', [(0,), (0, 0), (0, 90), (90, 0), (50, 0, 70), (1,)])
def test_empty_clouds(sizes):
    found = compare([random_cloud(n, spread=0.7, seed=n) for n in sizes])
    assert found['voxels'].shape[1:] == (3, 5)
    assert set(found['coors'][:, 0].tolist()) == {i for i, n in enumerate(sizes) if n}


def test_points_that_are_all_outside():
    cloud = random_cloud(30)
    cloud[:, 2] = 1.0  # the upper border is outside
    found = compare([cloud, random_cloud(10, spread=0.5)])
    assert found['coors'][:, 0].eq(1).all()


def test_points_on_the_borders():
    borders = torch.tensor([-1.2, -1.0, -0.8, 0.0, 0.8, 1.0, 1.2])
    borders = torch.cat(
        [torch.nextafter(borders, torch.tensor(side)) for side in (-9.0, 9.0)] + [borders]
    )
    cloud = torch.cartesian_prod(borders, borders, borders)
    assert len(compare([cloud], max_voxels=(9999, 9999))['voxels']) == 96


def test_a_dense_voxel_keeps_its_first_points_in_order():
    cloud = torch.zeros(9, 4)
    cloud[:, 3] = torch.arange(9)
    found = compare([cloud, cloud + 0.0625])
    assert found['voxels'][..., 3].tolist() == [[0, 1, 2], [0.0625, 1.0625, 2.0625]]
    assert found['num_points'].tolist() == [3, 3]


@pytest.mark.parametrize('training', [True, False])
def test_the_limit_holds_for_each_cloud(training):
    clouds = [random_cloud(2000, seed=1), random_cloud(3, spread=0.7), random_cloud(2000, seed=2)]
    found = compare(clouds, training=training)
    counts = found['coors'][:, 0].bincount().tolist()
    assert counts == [40, 3, 40] if training else [60, 3, 60]


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_other_precisions(dtype):
    compare([random_cloud(500).to(dtype)])


def test_columns_that_are_not_contiguous():
    compare([random_cloud(300, columns=10)[:, ::2]])


def test_a_grid_beyond_32_bits():
    """0.7 billion cells a cloud: the last of four clouds is beyond the largest int32."""
    fine = dict(voxel_size=[0.01, 0.01, 0.01], point_cloud_range=[-4.5, -4.5, -4.5, 4.5, 4.5, 4.5])
    assert np.prod(Voxelizer(**fine, **LIMITS).range_shape) * 4 > 2**31
    clouds = [random_cloud(50, spread=4.5, seed=i) for i in range(4)]
    found = Voxelizer(**fine, **LIMITS)(clouds)
    alone = [Voxelizer(**fine, **LIMITS)([cloud]) for cloud in clouds]
    assert torch.equal(found['voxels'], torch.cat([a['voxels'] for a in alone]))
    assert found['coors'][:, 0].tolist() == [i for i, a in enumerate(alone) for _ in a['coors']]
    assert torch.equal(found['coors'][:, 1:], torch.cat([a['coors'][:, 1:] for a in alone]))


def test_half_a_voxel_more_is_rounded_up_as_in_cpp():
    options = dict(voxel_size=[0.4] * 3, point_cloud_range=[0.0, 0, 0, 1, 1, 1])
    assert Voxelizer(**options, **LIMITS).range_shape == (3, 3, 3)
    compare([random_cloud(400)], **options)


def test_nan_and_infinity_lie_outside():
    cloud = random_cloud(12, spread=0.5)
    damaged = torch.cat([cloud, cloud[:5]])
    for index, value in enumerate([torch.nan, torch.inf, -torch.inf, 1e30, -1e30]):
        damaged[12 + index, index % 3] = value
    for found, expected in zip(
        *(Voxelizer(**GRID, **LIMITS)([c]).values() for c in (damaged, cloud)), strict=True
    ):
        assert torch.equal(found, expected)


def test_voxels_beyond_the_declared_grid_are_dropped_and_counted():
    cloud = random_cloud(3000)
    whole = compare([cloud])
    declared = [11, 12, 20]  # of 10, 16 and 24
    found = Voxelizer(**GRID, **LIMITS, sparse_shape=declared).eval()([cloud])
    kept = (whole['coors'][:, 1:] < torch.tensor(declared)).all(dim=1)
    assert 0 < kept.sum() < len(kept) == LIMITS['max_voxels'][1]
    assert_equal(found, {name: tensor[kept] for name, tensor in whole.items()})


def test_one_host_read_whatever_the_batch():
    for sizes in ([500] * 4, [0], [0, 9]):
        with PretendDevice() as device:
            module = Voxelizer(**GRID, **LIMITS).to(DEVICE)
            batch = [random_cloud(size).to(DEVICE) for size in sizes]
            device.waits.clear()
            module(batch)
        assert device.waits == {'voxelize.py:forward': 1}


def test_constants_follow_the_module_and_are_not_saved():
    module = Voxelizer(**GRID, **LIMITS)
    assert not module.state_dict()
    assert {buffer.device.type for buffer in module.to('meta').buffers()} == {'meta'}


def test_group_equal():
    first, before = group_equal(torch.tensor([7, 3, 7, 7, 0, 3]))
    assert first.tolist() == [0, 1, 0, 0, 4, 1]
    assert before.tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(max_num_points=0), r'max_num_points \(0\)'),
        (dict(max_voxels=(5, -1)), r'max_voxels \(\(5, -1\)\)'),
        (dict(voxel_size=[9.0, 0.1, 0.2]), r'holds \[0, 16, 10\] voxels of \[9.0, 0.1, 0.2\] m'),
    ],
)
def test_impossible_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Voxelizer(**{**GRID, **LIMITS, **options})
