"""Augmented boxes project to the pixels of the original ones."""

import copy

import numpy as np
import pytest
import torch

from projects.cmt_aqr.datasets.transforms import GlobalRotScaleTransAll, RandomFlip3DAll

EVERYTHING = dict(rot_range=[-0.8, 0.8], scale_ratio_range=[0.9, 1.1], translation_std=[0.5] * 3)


def project(points: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """(P, 3) and (V, 4, 4) -> (V, P, 3): u, v and depth."""
    scaled = np.einsum('vij,pj->vpi', lidar2img[:, :3], np.c_[points, np.ones(len(points))])
    return np.concatenate([scaled[..., :2] / scaled[..., 2:], scaled[..., 2:]], axis=-1)


def corners(sample: dict) -> np.ndarray:
    """(N * 8, 3) corners of the boxes; their order depends on a flip, so they are sorted later."""
    return sample['gt_bboxes_3d'].corners.double().numpy().reshape(-1, 3)


def by_box(projected: np.ndarray) -> np.ndarray:
    """(V, N * 8, 3) -> (V, N, 8, 3) with each box's corners in the order of u, then v, then depth.

    A mirrored box lists its corners in another order.
    """
    boxes = projected.reshape(len(projected), -1, 8, 3)
    order = np.lexsort(np.moveaxis(boxes.round(2), -1, 0)[::-1])
    return np.take_along_axis(boxes, order[..., None], axis=-2)


def points(sample: dict) -> np.ndarray:
    return sample['points'].coord.double().numpy()


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize(
    'arguments',
    [
        dict(EVERYTHING),
        dict(EVERYTHING, scale_ratio_range=[1, 1], translation_std=[0] * 3),
        dict(EVERYTHING, rot_range=[0, 0], translation_std=[0] * 3),
        dict(EVERYTHING, rot_range=[0, 0], scale_ratio_range=[1, 1]),
    ],
    ids=['all', 'rotation', 'scale', 'shift'],
)
def test_rotation_scale_and_shift(sample, arguments, seed):
    before = copy.deepcopy(sample)
    np.random.seed(seed)
    after = GlobalRotScaleTransAll(**arguments)(sample)
    assert not np.allclose(points(after), points(before), atol=1e-3)
    for read in (corners, points):
        was = project(read(before), before['lidar2img'])
        now = project(read(after), after['lidar2img'])
        ahead = was[..., 2] > 1
        assert ahead.any()
        np.testing.assert_allclose(now[ahead], was[ahead], atol=1e-3)


@pytest.mark.parametrize('horizontal', [0, 1])
@pytest.mark.parametrize('vertical', [0, 1])
def test_flips(sample, horizontal, vertical):
    before = copy.deepcopy(sample)
    flip = RandomFlip3DAll(flip_ratio_bev_horizontal=horizontal, flip_ratio_bev_vertical=vertical)
    after = flip(sample)
    signs = [-1 if vertical else 1, -1 if horizontal else 1, 1]
    np.testing.assert_allclose(points(after), points(before) * signs)
    np.testing.assert_allclose(
        project(points(after), after['lidar2img']), project(points(before), before['lidar2img'])
    )
    was = by_box(project(corners(before), before['lidar2img'][:1]))
    now = by_box(project(corners(after), after['lidar2img'][:1]))
    np.testing.assert_allclose(now, was, atol=2e-3)


def test_images_are_not_mirrored_with_the_scene(sample):
    images = [image.copy() for image in sample['img']]
    after = RandomFlip3DAll(flip_ratio_bev_horizontal=1, flip_ratio_bev_vertical=1)(sample)
    assert all(map(np.array_equal, after['img'], images))


def test_one_after_the_other_keeps_all_matrices_true(sample):
    before = copy.deepcopy(sample)
    for transform in (
        GlobalRotScaleTransAll(**EVERYTHING),
        RandomFlip3DAll(flip_ratio_bev_horizontal=1, flip_ratio_bev_vertical=1),
        RandomFlip3DAll(),
    ):
        sample = transform(sample)
    np.testing.assert_allclose(
        sample['lidar2img'], sample['cam2img'] @ sample['lidar2cam'], atol=1e-9
    )
    was, now = (project(points(s), s['lidar2img']) for s in (before, sample))
    ahead = was[..., 2] > 1
    np.testing.assert_allclose(now[ahead], was[ahead], atol=1e-3)


def test_velocity_turns_with_the_boxes(sample):
    before = sample['gt_bboxes_3d'].tensor.clone()
    after = GlobalRotScaleTransAll(
        rot_range=[np.pi / 2, np.pi / 2], scale_ratio_range=[1, 1], translation_std=[0] * 3
    )(sample)['gt_bboxes_3d'].tensor
    torch.testing.assert_close(after[:, 7], -before[:, 8], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[:, 8], before[:, 7], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    'without', ['points', 'boxes', 'points and boxes', 'annotations', 'images']
)
def test_empty_samples(sample, without):
    if 'points' in without:
        sample['points'] = sample['points'].new_point(sample['points'].tensor[:0])
    if 'boxes' in without:
        sample['gt_bboxes_3d'] = sample['gt_bboxes_3d'][:0]
    if without == 'annotations':
        del sample['gt_bboxes_3d']
    if without == 'images':
        for key in ('img', 'lidar2img', 'lidar2cam', 'cam2img'):
            del sample[key]
    for transform in (GlobalRotScaleTransAll(**EVERYTHING), RandomFlip3DAll()):
        sample = transform(sample)
    assert sample['points'].tensor.isfinite().all()
    assert ('lidar2img' in sample) == (without != 'images')


def test_a_sample_without_a_cloud_is_augmented_like_any_other(sample):
    other = copy.deepcopy(sample)
    del other['points']
    results = []
    for one in (sample, other):
        np.random.seed(3)
        results.append(GlobalRotScaleTransAll(**EVERYTHING)(one))
    assert 'points' not in results[1]
    assert np.array_equal(*(result['lidar2img'] for result in results))
    assert torch.equal(*(result['gt_bboxes_3d'].tensor for result in results))


def test_same_seed_same_augmentation(sample):
    other = copy.deepcopy(sample)
    results = []
    for one in (sample, other):
        np.random.seed(3)
        results.append(RandomFlip3DAll()(GlobalRotScaleTransAll(**EVERYTHING)(one))['lidar2img'])
    assert np.array_equal(*results)
