"""A sample with objects pasted into it: points, boxes, labels and images agree."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints

from projects.cmt_aqr.datasets.failures import BeamReduction, CameraDrop, LidarDrop
from projects.cmt_aqr.datasets.object_sampling import JointObjectSample
from projects.cmt_aqr.datasets.object_sampling.views import view_boxes

# Points of the sample: on the far car's place, behind it, and on the truck beside.
POINTS = [[0.5, 19.5, 0.5], [0, 40, 0], [-7.5, 19, 0]]
TRUCK = [-8.0, 20, -1, 2, 2, 2, 0, 0, 0]


@pytest.fixture
def sample(lidar2img) -> dict:
    """With a truck at the left, which keeps its place."""
    points = torch.tensor([[*xyz, 9, 9] for xyz in POINTS])
    return dict(
        token='t',
        points=LiDARPoints(points, points_dim=5),
        gt_bboxes_3d=LiDARInstance3DBoxes(torch.tensor([TRUCK]), box_dim=9),
        gt_labels_3d=np.array([2]),
        img=[np.full((100, 200, 3), 20, dtype=np.uint8) for _ in range(2)],
        camera_names=['CAM_BACK', 'CAM_FRONT'],
        lidar2img=np.stack([lidar2img @ np.diag([-1, -1, 1, 1]), lidar2img]),
    )


@pytest.fixture
def make(sampler_config):
    """A transform that pastes all three objects."""

    def make(**options) -> JointObjectSample:
        transform = TRANSFORMS.build(
            dict(type='JointObjectSample', db_sampler=sampler_config(), **options)
        )
        objects = np.array(transform.db_sampler.database.index)
        transform.db_sampler.draw = lambda boxes, labels: objects
        return transform

    return make


def without_images(sample: dict) -> dict:
    return {k: v for k, v in sample.items() if k not in ('img', 'camera_names', 'lidar2img')}


@pytest.mark.parametrize('images', [True, False])
def test_points_and_boxes(make, sample, images):
    results = make()(sample if images else without_images(sample))
    assert results['gt_labels_3d'].tolist() == [2, 1, 1, 0]
    assert results['gt_labels_3d'].dtype == np.int64
    places = results['gt_bboxes_3d'].gravity_center.tolist()
    assert places == [[-8, 20, 0], [0, 10, 0], [0, 20, 0], [8, 20, 0]]
    points = results['points'].tensor.numpy()
    # The point on the place of the far car is gone.
    pasted = [[0, 9, 0, 0, 0]] * 5 + [[0, 19, 0, 1, 1]] * 5 + [[8, 19, 0, 2, 2]] * 5
    np.testing.assert_allclose(points, [[0, 40, 0, 9, 9], [-7.5, 19, 0, 9, 9], *pasted])
    assert ('img' in results) is images


@pytest.mark.parametrize(('rate', 'grey'), [(1.0, 200), (0.5, 110)])
def test_patches(make, sample, lidar2img, rate, grey):
    results = make(mixup_rate=rate)(sample)
    back, front = results['img']
    assert (back == 20).all()
    view = view_boxes(results['gt_bboxes_3d'].corners.numpy(), lidar2img, (100, 200))
    # The far car has its place behind the near one, and the bus no patch.
    assert view.far_to_near() == [0, 2, 3, 1]
    far = view.rectangles[2]
    near = view.rectangles[1]
    assert (near[:2] < far[:2]).all()
    assert (near[2:] > far[2:]).all()
    changed = np.zeros((100, 200), dtype=bool)
    changed[view.window(1)] = True
    assert (front[~changed] == 20).all()
    ring = changed.copy()
    ring[view.window(2)] = False
    assert (front[ring] == grey).all()
    # Of the far car, half of half shines through.
    assert (front[view.window(2)] == (200 if rate == 1 else 130)).all()


def test_what_is_hidden_goes(make, sample):
    results = make(drop_hidden=True)(sample)
    assert results['gt_labels_3d'].tolist() == [2, 1, 0]  # without the far car
    points = results['points'].tensor.numpy()
    # Nor the point far behind; the far car's place keeps what was there, which the near one hides.
    pasted = [[0, 9, 0, 0, 0]] * 5 + [[8, 19, 0, 2, 2]] * 5
    np.testing.assert_allclose(points, [[-7.5, 19, 0, 9, 9], *pasted])


def test_a_real_box_that_becomes_hidden_goes(make, sample):
    box = torch.tensor([[0, 30, -1, 2, 2, 2, 0, 0, 0.0]])
    sample['gt_bboxes_3d'] = sample['gt_bboxes_3d'].new_box(box)
    assert make(drop_hidden=True)(sample)['gt_labels_3d'].tolist() == [1, 0]


def test_a_sample_without_boxes(make, sample):
    sample['gt_bboxes_3d'] = sample['gt_bboxes_3d'][:0]
    sample['gt_labels_3d'] = sample['gt_labels_3d'][:0]
    for drop_hidden in (False, True):
        results = make(drop_hidden=drop_hidden)(copy.deepcopy(sample))
        assert len(results['gt_labels_3d']) == (2 if drop_hidden else 3)


@pytest.mark.parametrize('why', ['stopped', 'nothing drawn'])
def test_nothing_is_pasted(make, sample, why):
    transform = make(drop_hidden=True)
    if why == 'stopped':
        transform.set_stopped(True)
    else:
        nothing = np.array(transform.db_sampler.database.index[:0])
        transform.db_sampler.draw = lambda boxes, labels: nothing
    expected = copy.deepcopy(sample)
    results = transform(sample)
    assert results.keys() == expected.keys()
    assert results['gt_labels_3d'].tolist() == [2]
    assert torch.equal(results['points'].tensor, expected['points'].tensor)
    np.testing.assert_array_equal(results['img'], expected['img'])
    if why == 'stopped':
        transform.set_stopped(False)
        assert len(transform(sample)['gt_labels_3d']) > 1


@pytest.mark.parametrize('rate', [0, -1, 1.5])
def test_a_wrong_rate(make, rate):
    with pytest.raises(ValueError, match=f'mixup_rate is {rate}; it must be above 0 and at most 1'):
        make(mixup_rate=rate)


def test_partial_failures_and_pasted_objects_do_not_go_together(make, sample):
    failures = [BeamReduction().draw({}, None)]
    with pytest.raises(
        ValueError, match=r'BeamReduction.* drawn for sample t, .* take JointObject'
    ):
        make()(dict(sample, failures=failures))


def test_pasted_objects_are_not_in_a_dropped_cloud(make, sample):
    sample['failures'] = [LidarDrop().draw({}, None)]
    sample['points'] = sample['points'][:0]
    images = make()(copy.deepcopy({**sample, 'failures': []}))['img']
    for drop_hidden in (False, True):
        results = make(drop_hidden=drop_hidden)(copy.deepcopy(sample))
        assert results['points'].tensor.shape == (0, 5)
    results = make()(sample)
    assert len(results['gt_bboxes_3d']) == 4  # the cameras see them
    assert all(map(np.array_equal, results['img'], images))


def test_pasted_objects_are_not_in_dropped_cameras(make, sample):
    cameras = {'images': dict.fromkeys(sample['camera_names'])}
    sample['failures'] = [CameraDrop().draw(cameras, None)]
    sample['img'] = [np.zeros_like(image) for image in sample['img']]
    points = make()(copy.deepcopy({**sample, 'failures': []}))['points']
    results = make()(sample)
    assert not any(image.any() for image in results['img'])
    assert results['points'].tensor.equal(points.tensor)


def test_the_transform_that_is_missing_is_named(make, sample):
    del sample['lidar2img']
    with pytest.raises(KeyError, match='ComputeLidar2Img before JointObjectSample'):
        make()(sample)


def test_a_copy_for_a_worker_can_be_made(sampler_config):
    transform = JointObjectSample(db_sampler=sampler_config())
    assert 'mixup_rate=1.0' in repr(pickle.loads(pickle.dumps(transform)))
