"""What nearer boxes hide."""

import numpy as np
import pytest

from projects.cmt_aqr.datasets.object_sampling.occlusion import hidden_boxes, hidden_points
from projects.cmt_aqr.datasets.object_sampling.views import NO_BOX, view_boxes

SHAPE = (100, 200)
FAR, NEAR, ASIDE, BEHIND = (0, 20), (0, 10), (8, 20), (0, -10)


@pytest.mark.parametrize(
    ('places', 'num_real', 'hidden'),
    [
        ([FAR, NEAR], 2, set()),  # the sensors saw both
        ([FAR, NEAR], 1, {0}),
        ([NEAR, FAR], 1, {1}),
        ([FAR, NEAR], 0, {0}),
        ([ASIDE, NEAR, BEHIND], 0, set()),  # no camera sees what is behind
        ([FAR, NEAR, (0, 5)], 2, {1}),  # the first was hidden before
    ],
)
def test_boxes(corners, lidar2img, places, num_real, hidden):
    view = view_boxes(corners(*places), lidar2img, SHAPE)
    assert hidden_boxes([view], num_real=num_real) == hidden


def test_a_box_is_not_hidden_if_another_camera_sees_it(corners, lidar2img):
    boxes = corners(FAR, NEAR)
    views = [
        view_boxes(boxes, lidar2img, SHAPE),
        view_boxes(boxes, lidar2img, SHAPE, candidates=[True, False]),
    ]
    assert hidden_boxes(views, num_real=0) == set()


POINTS = np.array(
    [
        [0, 9, 0],  # of the near box, before its middle
        [0, 11, 0],  # of the near box, behind its middle
        [0, 19, 0],  # of the far box
        [0, 5, 0],  # before both
        [0, 40, 0],  # behind both
        [20, 40, 0],  # beside both
        [0, -40, 0],  # behind the camera
    ]
)


@pytest.mark.parametrize(
    ('num_real', 'hidden'),
    [
        (2, []),
        (1, [2, 4]),  # the far box is real, the near one pasted
        (0, [2, 4]),
    ],
)
def test_points(corners, lidar2img, num_real, hidden):
    view = view_boxes(corners(FAR, NEAR), lidar2img, SHAPE)
    owner = np.array([1, 1, 0, NO_BOX, NO_BOX, NO_BOX, NO_BOX])
    owner[owner < num_real] = NO_BOX
    found = hidden_points(POINTS, owner, [view], num_real=num_real)
    # A real point within a pasted box is not there any more when this is asked.
    assert np.flatnonzero(found).tolist() == hidden


def test_pasted_points_behind_a_real_box(corners, lidar2img):
    view = view_boxes(corners(NEAR, FAR), lidar2img, SHAPE)
    owner = np.array([NO_BOX, NO_BOX, 1, NO_BOX, NO_BOX, NO_BOX, NO_BOX])
    found = hidden_points(POINTS, owner, [view], num_real=1)
    assert np.flatnonzero(found).tolist() == [2]


def test_points_hidden_in_any_camera_are_hidden(corners, lidar2img):
    sees = view_boxes(corners(FAR, NEAR), lidar2img, SHAPE)
    sees_not = view_boxes(corners(FAR, NEAR), lidar2img @ np.diag([1, -1, 1, 1]), SHAPE)
    owner = np.full(len(POINTS), NO_BOX)
    alone = hidden_points(POINTS, owner, [sees], num_real=0)
    assert alone.any()
    np.testing.assert_array_equal(
        hidden_points(POINTS, owner, [sees_not, sees], num_real=0),
        alone | hidden_points(POINTS, owner, [sees_not], num_real=0),
    )
