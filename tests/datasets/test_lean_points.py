"""mmdet3d's points and the lean ones, side by side."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARPoints

from projects.cmt_aqr.datasets.lean_points import LeanLiDARPoints

POINTS = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)


@pytest.fixture
def both() -> list[LiDARPoints]:
    return [kind(POINTS.copy(), points_dim=5) for kind in (LiDARPoints, LeanLiDARPoints)]


@pytest.mark.parametrize(
    'item',
    [
        POINTS[:, 0] > 0,
        torch.from_numpy(POINTS[:, 0] > 0),
        np.array([3, 1, 3]),
        torch.tensor([3, 1, 3]),
        np.zeros(50, dtype=bool),
        slice(2, 8),
        4,
        (slice(2, 8), [0, 1, 2]),
    ],
    ids=lambda item: type(item).__name__,
)
def test_rows_are_those_of_mmdet3d(both, item):
    theirs, ours = (points[item] for points in both)
    assert type(ours) is LeanLiDARPoints
    assert torch.equal(ours.tensor, theirs.tensor)
    assert ours.points_dim == theirs.points_dim


def test_a_seed_gives_the_order_of_mmdet3d(both):
    orders = []
    for points in both:
        torch.manual_seed(0)
        orders.append(points.shuffle())
    assert torch.equal(*orders)
    assert torch.equal(both[0].tensor, both[1].tensor)


def test_the_scene_is_moved_as_by_mmdet3d(both):
    for points in both:
        points.rotate(0.3)
        points.flip('horizontal')
        points.scale(1.1)
        points.translate(np.array([1.0, 2.0, 3.0]))
    assert torch.equal(both[0].tensor, both[1].tensor)
    assert both[1].cat([both[1], both[1][:3]]).shape == (53, 5)


def test_nothing_is_copied():
    points = POINTS.copy()
    assert LeanLiDARPoints(points, points_dim=5).numpy() is not points
    assert np.shares_memory(LeanLiDARPoints(points, points_dim=5).numpy(), points)


def test_no_points_and_wrong_points():
    assert LeanLiDARPoints(torch.empty(0), points_dim=5).shape == (0, 5)
    with pytest.raises(ValueError, match=r'points are \(50, 5\), not \(N, 4\)'):
        LeanLiDARPoints(POINTS, points_dim=4)
