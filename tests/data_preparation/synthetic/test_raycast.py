"""Ray hits against values worked out by hand."""

import numpy as np
import pytest

from projects.cmt_aqr.data_preparation.synthetic.raycast import EDGES, Box, cast

ORIGIN = np.zeros(3)


def box(x=10.0, y=0.0, z=0.0, size=(4.0, 2.0, 1.0), yaw=0.0) -> Box:
    return Box(np.array([x, y, z]), np.array(size), yaw)


@pytest.mark.parametrize(
    ('target', 'direction', 'depth', 'axis'),
    [
        (box(), (1, 0, 0), 8.0, 0),
        (box(), (2, 0, 0), 4.0, 0),  # depth counts in lengths of the direction
        (box(yaw=np.pi / 2), (1, 0, 0), 9.0, 1),  # broadside: half the width in front
        (box(x=-10), (-1, 0, 0), 8.0, 0),
        (box(x=0, y=5), (0, 1, 0), 4.0, 1),
        (box(x=0, z=-3), (0, 0, -1), 2.5, 2),
        # A corner points at the origin: it is sqrt(2) before the centre of a 2 x 2 box.
        (box(size=(2, 2, 1), yaw=np.pi / 4), (1, 1e-4, 0), 10 - np.sqrt(2), None),
    ],
)
def test_hits(target, direction, depth, axis):
    hits = cast(ORIGIN, np.array(direction, float), target)
    assert hits.depth == pytest.approx(depth, rel=1e-3 if axis is None else 1e-6)
    if axis is not None:
        assert hits.axis == axis


@pytest.mark.parametrize(
    ('target', 'direction'),
    [
        (box(), (-1, 0, 0)),  # behind
        (box(y=1.5), (1, 0, 0)),  # beside: half the width is 1
        (box(z=0.6), (1, 0, 0)),  # above: half the height is 0.5
        (box(), (0, 0, 0)),  # no direction at all
    ],
)
def test_misses(target, direction):
    assert cast(ORIGIN, np.array(direction, float), target).depth == np.inf


def test_shape_and_type():
    hits = cast(ORIGIN, np.ones((5, 7, 3), np.float32), box())
    assert hits.depth.shape == hits.axis.shape == (5, 7)
    assert hits.depth.dtype == np.float32


def test_edges_join_neighbouring_corners():
    lengths = np.linalg.norm(np.diff(box().corners()[EDGES], axis=1)[:, 0], axis=1)
    assert sorted(lengths) == pytest.approx([1.0] * 4 + [2.0] * 4 + [4.0] * 4)
