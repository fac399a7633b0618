"""Centre lines and lanes against values worked out by hand."""

import numpy as np
import pytest

from projects.cmt_aqr.data_preparation.synthetic.road import (
    STEP,
    CentreLine,
    Lane,
    bending_line,
    straight_line,
)


def circle(radius: float) -> CentreLine:
    """A circle to the left that starts at the origin along x."""
    distances = np.arange(0, 2 * np.pi * radius, STEP)
    return CentreLine(np.zeros(3), distances, np.full(len(distances), 1 / radius))


def test_a_quarter_of_a_circle():
    x, y, yaw = circle(40.0).poses(np.array([np.pi / 2 * 40]))[0]
    assert (x, y, yaw) == pytest.approx((40, 40, np.pi / 2), abs=0.02)


def test_offsets_to_the_left_lie_on_smaller_circles():
    places = circle(40.0).poses(np.linspace(0, 100, 30), 10.0)[:, :2]
    assert np.hypot(*(places - [0, 40]).T) == pytest.approx(np.full(30, 30.0), abs=0.02)


def test_lanes_keep_to_the_right_of_their_direction():
    line = straight_line(np.array([5.0, 0.0, 0.0]), 50.0)
    there, back = Lane(line, 1, -2.0), Lane(line, -1, 2.0)
    assert there.poses(np.array([10.0]))[0] == pytest.approx([15, -2, 0])
    assert back.poses(np.array([10.0]))[0] == pytest.approx([-5, 2, np.pi])
    # To the left of who drives back is the middle of the road.
    assert back.poses(np.array([10.0]), 2.0)[0] == pytest.approx([-5, 0, np.pi])


def test_gap_is_the_distance_from_the_line():
    line = straight_line(np.zeros(3), 50.0)
    points = np.array([[0.0, 3.0], [10.25, -4.0], [53.0, 4.0]])
    assert line.gap(points) == pytest.approx([3, 4, 5], abs=0.01)


@pytest.mark.parametrize('seed', range(5))
def test_a_bending_line_goes_on_and_never_bends_harder_than_its_radius(seed):
    line = bending_line(np.random.default_rng(seed), np.array([1.0, 2.0, 0.3]), 100.0)
    assert line.poses(np.array([0.0]))[0] == pytest.approx([1, 2, 0.3])
    points = line.poses(line.distances)[:, :2]
    assert np.hypot(*np.diff(points, axis=0).T) == pytest.approx(np.full(400, STEP), abs=1e-3)
    assert np.abs(line.curvature).max() <= 1 / 20 + 1e-9
