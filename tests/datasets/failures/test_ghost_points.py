"""Returns that drops in the air make of those of a cloud."""

import pickle

import numpy as np
import pytest

from projects.cmt_aqr.datasets.failures.ghost_points import DrawnGhostPoints, GhostPoints

TO_KEYFRAME = np.eye(4)


@pytest.fixture
def cloud() -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20000, 5)).astype(np.float32)
    points[:, :3] *= rng.uniform(1, 50, (20000, 1)) / np.linalg.norm(points[:, :3], axis=1)[:, None]
    return points


@pytest.mark.parametrize(('severity', 'share'), [(1, 0.05), (2, 0.1), (3, 0.2)])
def test_a_share_of_the_returns_comes_nearer_along_its_ray(cloud, severity, share):
    before = cloud.copy()
    (drawn,) = GhostPoints(severity=severity)(dict(token='a'))['failures']
    damaged = drawn.damage_points(cloud, TO_KEYFRAME, 0.0)
    far, moved = np.linalg.norm(cloud[:, :3], axis=1), (damaged != cloud).any(axis=1)
    assert moved[far > 2].mean() == pytest.approx(share, abs=0.01)
    assert not moved[far <= 2].any()

    distance = np.linalg.norm(damaged[moved, :3], axis=1)
    assert (distance >= 2 - 1e-5).all()
    assert (distance < np.minimum(far[moved], 20)).all()
    rays = damaged[moved, :3] / distance[:, None]
    np.testing.assert_allclose(rays, cloud[moved, :3] / far[moved, None], atol=1e-6)
    np.testing.assert_allclose(damaged[moved, 3], cloud[moved, 3] * 0.1, rtol=1e-6)
    assert np.array_equal(damaged[:, 4], cloud[:, 4])
    assert np.array_equal(cloud, before)
    assert drawn.lidar_health(np.zeros((2, 2))).tolist() == pytest.approx([1 - share] * 2)


def test_a_draw_repeats_itself_and_differs_between_clouds(cloud):
    drawn = DrawnGhostPoints(0.2, 7)
    copied = pickle.loads(pickle.dumps(drawn))
    first, again = (d.damage_points(cloud, TO_KEYFRAME, 0.0) for d in (drawn, copied))
    assert np.array_equal(first, again)
    other = drawn.damage_points(cloud + 1, TO_KEYFRAME, 0.0)
    assert ((first != cloud).any(axis=1) != (other != cloud + 1).any(axis=1)).any()


def test_an_empty_cloud_stays_empty():
    assert DrawnGhostPoints(0.2, 7).damage_points(np.empty((0, 5)), TO_KEYFRAME, 0.0).size == 0
