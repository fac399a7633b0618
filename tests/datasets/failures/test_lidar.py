"""Which points each failure of the LiDAR leaves, and which share of health."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from projects.cmt_aqr.datasets.failures import (
    BeamReduction,
    LidarDrop,
    LimitedFieldOfView,
    ObjectFailure,
    PointsDrop,
)
from projects.cmt_aqr.datasets.failures.lidar import BEVFUSION_RINGS

KEYFRAME = (np.eye(4), 0.0)


def draw(failure, **sample):
    """What is drawn for a sample, or None."""
    return next(iter(failure(dict(dict(token='a'), **sample))['failures']), None)


@pytest.fixture
def cloud() -> np.ndarray:
    """1,000 points all round within 20 m, on all rings."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (1000, 5)).astype(np.float32)
    points[:, 4] = np.arange(1000) % 32
    return points


@pytest.fixture
def places() -> np.ndarray:
    """(3, 4, 2): metres, on a coarse grid."""
    return np.stack(np.meshgrid([-15.0, -5.0, 5.0, 15.0], [-10.0, 0.5, 10.0]), axis=-1)


@pytest.mark.parametrize(
    ('options', 'rings'),
    [
        (dict(severity=1), list(range(1, 32, 2))),
        (dict(severity=2), [1, 5, 9, 13, 17, 21, 25, 29]),
        (dict(severity=3), [1, 9, 17, 25]),
        (dict(rings=BEVFUSION_RINGS), [18, 20, 22, 24]),
    ],
)
def test_beams(cloud, places, options, rings):
    drawn = draw(BeamReduction(**options))
    left = drawn.damage_points(cloud, *KEYFRAME)
    assert np.array_equal(left, cloud[np.isin(cloud[:, 4], rings)])
    assert np.unique(left[:, 4]).tolist() == rings
    assert np.unique(drawn.lidar_health(places)) == pytest.approx(len(rings) / 32)


def test_the_forward_direction_is_that_of_the_rig():
    drawn = draw(LimitedFieldOfView(severity=2, forward=0.0))
    points = np.array([[10, 0, 0, 1, 1], [0, 10, 0, 1, 1], [-10, 0, 0, 1, 1]], dtype=np.float32)
    assert drawn.damage_points(points, *KEYFRAME)[:, :2].tolist() == [[10, 0]]
    assert drawn.lidar_health(points[:, :2].astype(float)).tolist() == [1, 0, 0]


def test_rings_that_the_lidar_does_not_have():
    with pytest.raises(ValueError, match=r'rings is \[31, 32\]; they go from 0 to 31'):
        BeamReduction(rings=[31, 32])


def test_bevfusion_rings_are_its_bins_of_elevation(real_frame):
    """Bin i from above begins at 0.1742 - 0.023275 (i - 1) radians; far points tell it exactly."""
    (path,) = real_frame.glob('**/*LIDAR_TOP*.bin')
    points = np.fromfile(path, np.float32).reshape(-1, 5)
    distance = np.linalg.norm(points[:, :3], axis=1)
    points, distance = points[distance > 10], distance[distance > 10]
    bins = np.floor((0.1742 - np.arcsin(points[:, 2] / distance)) / 0.023275) + 1
    in_bins = np.isin(bins, [7, 9, 11, 13])
    in_rings = np.isin(points[:, 4], BEVFUSION_RINGS)
    assert in_rings.sum() > 500
    assert (in_bins == in_rings).mean() > 0.99


def test_no_points_at_all(cloud, places):
    drawn = draw(LidarDrop())
    assert drawn.damage_points(cloud, *KEYFRAME).shape == (0, 5)
    assert not drawn.lidar_health(places).any()


def test_all_points_in_the_origin_of_the_keyframe(cloud):
    to_keyframe = np.eye(4)
    to_keyframe[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    to_keyframe[:3, 3] = [1, 2, 3]
    left = draw(LidarDrop(mode='zeros')).damage_points(cloud, to_keyframe, 0.1)
    assert left.shape == cloud.shape
    assert not left[:, 3:].any()
    np.testing.assert_allclose(left[:, :3] @ to_keyframe[:3, :3].T + [1, 2, 3], 0, atol=1e-6)
    with pytest.raises(ValueError, match="mode is 'none'; it must be 'empty' or 'zeros'"):
        LidarDrop(mode='none')


@pytest.mark.parametrize(('severity', 'angle'), [(1, 90), (2, 60)])
def test_field_of_view_is_round_forward(severity, angle):
    degrees = np.array([0, 50, -50, 70, -70, 100, -100, 180])
    radians = np.deg2rad(degrees)
    points = np.zeros((len(degrees), 5), np.float32)
    points[:, 0], points[:, 1] = 10 * np.sin(radians), 10 * np.cos(radians)  # from +y, forward
    drawn = draw(LimitedFieldOfView(severity=severity))
    expected = np.abs(degrees) < angle
    assert np.array_equal(drawn.damage_points(points, *KEYFRAME), points[expected])
    assert drawn.lidar_health(points[:, :2]).tolist() == expected.tolist()


@pytest.mark.parametrize(('severity', 'share'), [(1, 0.3), (2, 0.2), (3, 0.1)])
def test_points_at_random(cloud, places, severity, share):
    drawn = draw(PointsDrop(severity=severity))
    left = drawn.damage_points(cloud, *KEYFRAME)
    assert len(left) / len(cloud) == pytest.approx(share, abs=0.05)
    assert {row.tobytes() for row in left} <= {row.tobytes() for row in cloud}
    assert np.unique(drawn.lidar_health(places)) == pytest.approx(share)


def test_points_are_drawn_again_alike_but_other_ones_in_another_cloud(cloud):
    drawn = draw(PointsDrop(severity=1))
    left = drawn.damage_points(cloud, *KEYFRAME)
    assert np.array_equal(left, drawn.damage_points(cloud, *KEYFRAME))
    other = cloud.copy()
    other[:, 3] += 1
    assert not np.array_equal(left[:, :3], drawn.damage_points(other, *KEYFRAME)[:, :3])


# A car of 4 x 2 x 2 m that stands at x = 10 turned by 45°, and one that drives at 10 m/s along x.
BOXES = [[10.0, 0, -1, 4, 2, 2, np.pi / 4, 0, 0], [0, 10, -1, 4, 2, 2, 0, 10, 0]]


def annotated(boxes=BOXES) -> dict:
    boxes = torch.tensor(boxes).reshape(-1, 9)
    return dict(gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9))


def in_boxes(*places, **sample):
    """What is drawn for the first sample that is not spared, and which of the places it leaves."""
    sample = sample or dict(ann_info=annotated())
    drawn = next(filter(None, (draw(ObjectFailure(), token=str(i), **sample) for i in range(9))))
    points = np.zeros((len(places), 5), np.float32)
    points[:, :3] = np.reshape(places, (-1, 3))
    return drawn, points


def test_points_in_boxes_vanish():
    """A box stands on z and its length points along yaw, counter-clockwise from x."""
    drawn, points = in_boxes(
        [10, 0, 0], [11.2, 1.2, 0], [11.2, -1.2, 0], [10, 0, 1.1], [10, 0, -1.1], [1.9, 10, 0.9]
    )
    left = drawn.damage_points(points, *KEYFRAME)
    assert np.array_equal(left, points[[2, 3, 4]])


def test_a_moving_box_is_where_it_was_at_the_time_of_the_sweep():
    drawn, points = in_boxes([0, 10, 0], [-5, 10, 0], [10, 0, 0])
    left = drawn.damage_points(points, np.eye(4), 0.5)
    assert np.array_equal(left, points[:1])


def test_sweeps_are_compared_in_the_frame_of_the_keyframe():
    """One metre further back and turned to the left by 90°: keyframe's x is the sweep's -y."""
    drawn, points = in_boxes([0.0, -11, 0], [0, 11, 0])
    to_keyframe = np.eye(4)
    to_keyframe[:2, :2] = [[0, -1], [1, 0]]
    to_keyframe[0, 3] = -1
    assert np.array_equal(drawn.damage_points(points, to_keyframe, 0.0), points[1:])


def test_health_is_gone_under_the_boxes():
    drawn, _ = in_boxes()
    xy = np.array([[[10.0, 0], [11.2, 1.2]], [[11.2, -1.2], [0, 10]]])
    assert drawn.lidar_health(xy).tolist() == [[0, 0], [1, 0]]


def test_about_half_of_the_frames_are_spared():
    failure = ObjectFailure(seed=1)
    drawn = [draw(failure, token=str(i), ann_info=annotated()) for i in range(400)]
    assert drawn.count(None) / 400 == pytest.approx(0.5, abs=0.07)


def test_boxes_at_test_time_and_without_velocity():
    boxes = np.array(BOXES)
    boxes[:, 7:] = np.nan
    drawn, points = in_boxes([0, 10, 0], eval_ann_info=annotated(boxes.tolist()))
    assert len(drawn.damage_points(points, np.eye(4), 0.5)) == 0


def test_no_boxes_and_no_points():
    drawn, points = in_boxes([0, 10, 0], ann_info=annotated([]))
    assert np.array_equal(drawn.damage_points(points, *KEYFRAME), points)
    drawn, points = in_boxes()
    assert drawn.damage_points(points, *KEYFRAME).shape == (0, 5)


def test_missing_annotations_are_an_error_with_the_remedy():
    with pytest.raises(KeyError, match=r'sample \d has neither ann_info nor eval.*load_eval_anns'):
        in_boxes(timestamp=0)


@pytest.mark.parametrize(
    'failure', [BeamReduction(), LidarDrop(), LimitedFieldOfView(), PointsDrop()]
)
def test_an_empty_cloud_stays_one(cloud, failure):
    assert draw(failure).damage_points(cloud[:0], *KEYFRAME).shape == (0, 5)
