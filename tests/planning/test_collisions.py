"""Collisions of rectangles placed by hand."""

import numpy as np
import pytest

from projects.cmt_aqr.planning.collisions import collides, covered_cells


def test_a_box_covers_its_cells():
    cells = covered_cells(np.array([[10.25, -5.25, 3.0, 1.0, 0.0]]))
    rows, columns = np.nonzero(cells)
    # x from 8.75 to 11.75 m and y from -5.75 to -4.75 m, in cells of half a metre from -50 m.
    assert (rows.min(), rows.max()) == (117, 123)
    assert (columns.min(), columns.max()) == (88, 90)


def test_a_turned_box_covers_along_its_length():
    rows, columns = np.nonzero(covered_cells(np.array([[0.0, 0.0, 10.0, 1.0, np.pi / 2]])))
    assert np.ptp(columns) > 4 * np.ptp(rows)


@pytest.mark.parametrize(
    ('box', 'hit'),
    [
        ([12.0, 0.0, 4.0, 2.0, 0.0], True),  # 8 m ahead of the axle, 4.9 m of them its own reach
        ([17.0, 0.0, 4.0, 2.0, 0.0], False),
        ([10.0, 3.5, 4.0, 2.0, 0.0], False),  # in the next lane
        ([10.0, 1.8, 4.0, 2.0, 0.0], True),
        ([10.0, 0.0, 0.2, 0.2, 0.0], True),  # smaller than a cell
        ([6.0, 0.0, 0.5, 0.5, 0.0], False),  # behind
    ],
)
def test_collisions_of_a_vehicle_eight_metres_ahead(box, hit):
    assert collides(np.array([8.0, 0.0, 0.0]), np.array([box])) == hit


def test_yaw_turns_the_vehicle():
    box = np.array([[8.0, 3.4, 0.5, 0.5, 0.0]])
    assert not collides(np.array([8.0, 0.0, 0.0]), box)
    assert collides(np.array([8.0, 0.0, np.pi / 2]), box)


def test_an_empty_road_has_no_collision():
    assert not collides(np.zeros(3), np.zeros((0, 5)))
