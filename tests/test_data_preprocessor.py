"""Batches of whole, empty and damaged samples."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from pretend_device import DEVICE, PretendDevice

from projects.cmt_aqr.data_preprocessor import CmtDataPreprocessor

RANGE = [-4.0, -4.0, -1.0, 4.0, 4.0, 1.0]
VOXELS = dict(
    max_num_points=3, voxel_size=[1.0, 1.0, 1.0], point_cloud_range=RANGE, max_voxels=[50, 60]
)
MEAN, STD = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]


def preprocessor(**kwargs) -> CmtDataPreprocessor:
    options = dict(voxel_layer=VOXELS, mean=MEAN, std=STD, pad_size_divisor=8)
    return CmtDataPreprocessor(**{**options, **kwargs})


def batch(clouds=None, views=None) -> dict:
    inputs, samples = {}, []
    for i in range(len(clouds if clouds is not None else views)):
        count = 0 if views is None or views[i] is None else len(views[i])
        meta = dict(token=f'token{i}', lidar2img=np.tile(np.eye(4), (count, 1, 1)))
        samples.append(Det3DDataSample(metainfo=meta))
    if clouds is not None:
        inputs['points'] = clouds
    if views is not None:
        inputs['img'] = views
    return dict(inputs=inputs, data_samples=samples)


def images(count: int, height: int = 6, width: int = 10, value: int = 50) -> torch.Tensor:
    return torch.full((count, 3, height, width), value, dtype=torch.uint8)


def test_points_and_images():
    points = torch.tensor([[0.5, 0.5, 0.5, 7.0, 0.0], [0.6, 0.5, 0.5, 9.0, 0.0]])
    out = preprocessor()(batch([points, points + 1], [images(2), images(2)]))
    voxels = out['inputs']['voxels']
    # (sample, z, y, x); the cell of (0.5, 0.5, 0.5) is 1 up, 4 along y and 4 along x.
    assert voxels['coors'].tolist() == [[0, 1, 4, 4]]
    assert voxels['num_points'].tolist() == [2]
    assert torch.equal(voxels['voxels'][0, :2], points)
    imgs = out['inputs']['imgs']
    assert imgs.shape == (2, 2, 3, 8, 16)
    assert imgs[0, 0, :, 0, 0].tolist() == [40.0, 15.0, 5.0]
    assert imgs[..., 6:, :].eq(0).all()
    assert imgs[..., 10:].eq(0).all()
    assert [s.metainfo['pad_shape'] for s in out['data_samples']] == [(8, 16)] * 2


def test_health_is_batched_and_what_a_sample_lacks_is_healthy():
    data = batch(views=[images(2), images(1)])
    data['inputs']['health'] = dict(
        lidar=[torch.zeros(4, 4), torch.full((4, 4), 0.5)],
        camera=[torch.zeros(2, 3, 5), torch.zeros(1, 3, 4)],
    )
    health = preprocessor()(data)['inputs']['health']
    assert health['lidar'][:, 0, 0].tolist() == [0, 0.5]
    assert health['camera'].shape == (2, 2, 3, 5)
    assert not health['camera'][0].any()
    assert health['camera'][1, 0, 0].tolist() == [0, 0, 0, 0, 1]
    assert health['camera'][1, 1].all()


def test_bgr_to_rgb():
    view = torch.arange(3, dtype=torch.uint8).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    out = preprocessor(bgr_to_rgb=True, mean=[0] * 3, std=[1] * 3)(batch(views=[view]))
    assert out['inputs']['imgs'][0, 0, :, 0, 0].tolist() == [2.0, 1.0, 0.0]


def test_caller_keeps_its_batch():
    data = batch([torch.full((1, 5), torch.nan)], [images(1)])
    preprocessor()(data)
    assert sorted(data['inputs']) == ['img', 'points']
    assert data['inputs']['points'][0].shape == (1, 5)
    assert data['inputs']['img'][0].dtype == torch.uint8


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_points_that_are_not_finite_are_dropped_with_one_warning(value, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'projects.cmt_aqr.data_preprocessor.print_log', lambda text, **_: logged.append(text)
    )
    whole = torch.tensor([[0.5, 0.5, 0.5, 7.0, 0.0]])
    module = preprocessor()
    for column in (0, 3):
        broken = whole.repeat(3, 1)
        broken[1, column] = value
        out = module(batch([whole, broken]))
        assert [len(p) for p in out['inputs']['points']] == [1, 2]
        assert out['inputs']['voxels']['num_points'].tolist() == [1, 2]
        assert out['inputs']['voxels']['voxels'].isfinite().all()
    assert len(logged) == 1
    assert 'sample token1: dropped 1 points' in logged[0]


def test_every_cloud_may_have_points_that_are_not_finite():
    whole = torch.rand(4, 5)
    clouds = [whole.clone() for _ in range(4)]
    clouds[1][:2, 3] = torch.nan
    clouds[3][:, 0] = torch.inf
    kept = preprocessor()(batch(clouds))['inputs']['points']
    for found, rows in zip(kept, (slice(None), slice(2, None), slice(None), slice(0)), strict=True):
        assert torch.equal(found, whole[rows])


@pytest.mark.parametrize(('damaged', 'reads'), [(False, 2), (True, 3)])
def test_host_reads_do_not_grow_with_the_batch(damaged, reads):
    """Points that are not finite in each cloud, the voxels, and, to drop points, those left."""
    clouds = [torch.rand(20, 5) for _ in range(6)]
    clouds[2][0, 0] = torch.nan if damaged else 0.5
    with PretendDevice() as device:
        module = preprocessor().to(DEVICE)
        data = batch([cloud.to(DEVICE) for cloud in clouds])
        device.waits.clear()
        module(data)
    assert device.waits.total() == reads, device.waits


@pytest.mark.parametrize('full', [(0,), (1,), (2,), ()])
def test_empty_clouds(full):
    point = torch.tensor([[0.5, 0.5, 0.5, 7.0, 0.0]])
    clouds = [point if i in full else point[:0] for i in range(3)]
    voxels = preprocessor()(batch(clouds))['inputs']['voxels']
    assert voxels['coors'].tolist() == [[i, 1, 4, 4] for i in full]
    assert voxels['voxels'].shape == (len(full), 3, 5)
    assert voxels['num_points'].shape == (len(full),)


def test_max_voxels_follow_the_mode():
    centres = torch.arange(-3.5, 4, 1.0)
    x, y = torch.meshgrid(centres, centres, indexing='ij')
    cloud = torch.stack([x.flatten(), y.flatten(), torch.zeros(64), torch.zeros(64)], dim=1)
    module = preprocessor()
    assert len(module.train()(batch([cloud]))['inputs']['voxels']['coors']) == 50
    assert len(module.eval()(batch([cloud]))['inputs']['voxels']['coors']) == 60


@pytest.mark.parametrize('none', [None, torch.zeros(0, 3, 6, 10, dtype=torch.uint8)])
def test_fewer_cameras_are_filled_with_the_mean_image(none):
    out = preprocessor()(batch(views=[images(1), none, images(3, height=9)]))
    imgs = out['inputs']['imgs']
    assert imgs.shape == (3, 3, 3, 16, 16)
    filled = imgs.abs().amax(dim=(2, 3, 4)) > 0
    assert filled.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert [s.metainfo['pad_shape'] for s in out['data_samples']] == [(16, 16)] * 3
    assert [len(s.metainfo['lidar2img']) for s in out['data_samples']] == [1, 0, 3]


@pytest.mark.parametrize('views', [None, [None, None], [images(0), None]])
def test_without_any_image(views):
    out = preprocessor()(batch([torch.zeros(1, 5)] * 2, views))
    assert sorted(out['inputs']) == ['points', 'voxels']


def test_without_voxels_or_samples():
    data = dict(inputs=dict(points=[torch.zeros(2, 5)], img=[images(2)]))
    out = preprocessor(voxel_layer=None)(data)
    assert sorted(out['inputs']) == ['imgs', 'points']
    assert out['data_samples'] is None


def test_wrong_images_are_named():
    data = batch(views=[images(2)])
    data['data_samples'][0].set_metainfo(dict(lidar2img=np.zeros((3, 4, 4))))
    with pytest.raises(ValueError, match='sample token0: 2 images but 3 lidar2img'):
        preprocessor()(data)
    with pytest.raises(ValueError, match=r'\(1, 1, 6, 10\)'):
        preprocessor()(batch(views=[images(1)[:, :1]]))


def test_cached_features_are_stacked_in_float32():
    data = dict(inputs=dict(features={'img_backbone': [[torch.ones(2, 4, 3).half()] * 2]}))
    inputs = preprocessor()(data)['inputs']
    assert inputs.keys() == {'features'}
    (maps,) = inputs['features']['img_backbone']
    assert maps.dtype == torch.float32
    assert maps.shape == (2, 2, 4, 3)


def test_missing_views_of_cached_features_are_zero():
    maps = [torch.ones(1, 4, 3), torch.ones(3, 4, 3)]
    data = dict(inputs=dict(points=[torch.zeros(1, 5)] * 2, features={'img_neck': [maps]}))
    inputs = preprocessor()(data)['inputs']
    assert inputs.keys() == {'points', 'voxels', 'features'}
    assert inputs['features']['img_neck'][0].sum(dim=(2, 3)).tolist() == [[12, 0, 0], [12] * 3]


def test_cached_features_of_different_sizes_are_refused():
    maps = [torch.ones(1, 4, 3), torch.ones(1, 4, 5)]
    with pytest.raises(ValueError, match=r'\(1, 4, 5\).*as ResizeCropFlipImage does'):
        preprocessor()(dict(inputs=dict(features={'img_neck': [maps]})))
