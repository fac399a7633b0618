"""Rectangles of boxes, by hand."""

import numpy as np
import pytest

from projects.cmt_aqr.datasets.object_sampling.views import NO_BOX, view_boxes

SHAPE = (100, 200)


def test_the_rectangle_of_a_cube(corners, lidar2img):
    view = view_boxes(corners((0, 10)), lidar2img, SHAPE)
    # The near side, at 9 m, reaches 100 / 9 = 11.1 pixels from the middle, (100, 50).
    assert view.rectangles.tolist() == [[88, 38, 112, 62]]
    assert view.depth.tolist() == [10]
    assert view.seen.tolist() == [True]
    assert view.window(0) == (slice(38, 62), slice(88, 112))


@pytest.mark.parametrize(
    ('place', 'seen'),
    [
        ((0, 10), True),
        ((0, -10), False),  # behind
        ((0, 0.5), False),  # partly behind
        ((10.0, 10), True),  # cut off: its right side is outside
        ((30.0, 10), False),  # outside
        ((0, 100.0), True),
        ((1.5, 300.0), False),  # one pixel wide
    ],
)
def test_what_is_seen(corners, lidar2img, place, seen):
    view = view_boxes(corners(place), lidar2img, SHAPE)
    assert view.seen.tolist() == [seen]
    (left, top, right, bottom) = view.rectangles[0]
    assert 0 <= left <= right <= 200
    assert 0 <= top <= bottom <= 100
    assert view.far_to_near() == ([0] if seen else [])


def test_limits_are_asked_for(corners, lidar2img):
    options = dict(candidates=[True, False, True], min_size=25)
    view = view_boxes(corners((0, 8), (0, 8), (0, 10)), lidar2img, SHAPE, **options)
    assert view.seen.tolist() == [True, False, False]


def test_the_nearest_is_in_front(corners, lidar2img):
    view = view_boxes(corners((0, 20), (0, 5), (0, 10), (8, 20)), lidar2img, SHAPE)
    assert view.far_to_near() == [0, 3, 2, 1]
    expected = np.full(SHAPE, NO_BOX)
    expected[view.window(3)] = 3
    expected[view.window(1)] = 1
    np.testing.assert_array_equal(view.front(), expected)
    assert view.in_front() == {1, 3}


def test_no_boxes(corners, lidar2img):
    view = view_boxes(corners(), lidar2img, SHAPE)
    assert view.in_front() == set()
    assert (view.front() == NO_BOX).all()
