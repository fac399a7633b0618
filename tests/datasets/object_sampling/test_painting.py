"""Patches lie over each other by their depth."""

import numpy as np
import pytest

from projects.cmt_aqr.datasets.object_sampling.painting import paint
from projects.cmt_aqr.datasets.object_sampling.views import view_boxes

SHAPE = (100, 200)


def grey(value: int, shape: tuple[int, int] = (7, 5)) -> np.ndarray:
    return np.full((*shape, 3), value, dtype=np.uint8)


@pytest.mark.parametrize(('rate', 'far', 'near'), [(1.0, 100, 200), (0.5, 60, 110)])
def test_the_nearer_patch_lies_above(corners, lidar2img, rate, far, near):
    view = view_boxes(corners((0, 10), (1, 20)), lidar2img, SHAPE)
    image = grey(20, SHAPE)
    painted = paint(image, view, {0: grey(200), 1: grey(100)}, rate)
    expected = grey(20, SHAPE)
    expected[view.window(1)] = far
    expected[view.window(0)] = near
    over_both = np.zeros(SHAPE, dtype=bool)
    over_both[view.window(1)] = True
    both = np.zeros(SHAPE, dtype=bool)
    both[view.window(0)] = over_both[view.window(0)]
    expected[both] = round(rate * 200 + (1 - rate) * far)
    assert both.any()
    np.testing.assert_array_equal(painted, expected)
    assert (image == 20).all()


@pytest.mark.parametrize(('rate', 'shown'), [(1.0, 20), (0.5, 40)])
def test_what_the_image_itself_shows_comes_again_before_a_farther_patch(
    corners, lidar2img, rate, shown
):
    view = view_boxes(corners((0, 10), (0, 20)), lidar2img, SHAPE)
    painted = paint(grey(20, SHAPE), view, {1: grey(100)}, rate)
    expected = grey(20, SHAPE)
    expected[view.window(1)] = shown
    np.testing.assert_array_equal(painted, expected)


def test_a_patch_takes_the_size_of_its_place(corners, lidar2img):
    view = view_boxes(corners((0, 10)), lidar2img, SHAPE)
    patch = np.zeros((2, 2, 3), dtype=np.uint8)
    patch[:, 1] = 255
    painted = paint(grey(20, SHAPE), view, {0: patch}, 1.0)
    place = painted[view.window(0)]
    assert (place[:, 0] == 0).all()
    assert (place[:, -1] == 255).all()
    outside = painted.copy()
    outside[view.window(0)] = 20
    assert (outside == 20).all()
