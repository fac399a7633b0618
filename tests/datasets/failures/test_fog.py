"""Fog in clouds and images, by hand-computed distances."""

import pickle

import numpy as np
import pytest
from mmdet3d.registry import TRANSFORMS

from projects.cmt_aqr.datasets.failures.fog import Fog

# A camera 1.5 m above the ground that looks forward (ego x), 80 x 160 pixels, focal length 100.
FORWARD = [[0, 0, 1, 1.7], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]]
CAMERA = dict(cam2img=[[100.0, 0, 80], [0, 100.0, 40], [0, 0, 1]], cam2ego=FORWARD)
GREY = 190


def fog(severity: int = 2, token: str = 'abc', camera: dict = CAMERA):
    results = dict(token=token, images=dict(CAM_BACK={**CAMERA, 'cam2ego': np.eye(4)}, CAM=camera))
    return Fog(severity=severity)(results)['failures'][0]


def cloud(count: int, distance: float) -> np.ndarray:
    """Points on all sides of the sensor, at one distance."""
    directions = np.random.default_rng(1).normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = np.full((count, 5), 50, np.float32)
    points[:, :3] = directions * distance
    points[:, 4] = np.arange(count) % 32
    return points


def test_is_registered():
    assert isinstance(TRANSFORMS.build(dict(type='Fog', severity=3)), Fog)


@pytest.mark.parametrize(('severity', 'alpha'), [(1, 0.02), (2, 0.03), (3, 0.06)])
class TestCoefficients:
    def test_returns_are_lost_and_dimmed(self, severity, alpha):
        points = cloud(4000, 12.0)
        left = np.exp(-2 * alpha * 12)
        damaged = fog(severity).damage_points(points, np.eye(4), 0.0)
        assert damaged.dtype == np.float32
        assert len(damaged) / 4000 == pytest.approx(left, abs=0.03)
        np.testing.assert_allclose(damaged[:, 3], 50 * left, rtol=1e-5)
        np.testing.assert_array_equal(points[:, 3], 50)

    def test_lidar_health_is_the_share_of_returns(self, severity, alpha):
        health = fog(severity).lidar_health(np.array([[[0.0, 0], [3, 4]], [[0, 20], [-30, 40]]]))
        assert health.dtype == np.float32
        expected = np.exp(-2 * alpha * np.array([[0, 5], [20, 50]]))
        np.testing.assert_allclose(health, expected, rtol=1e-5)

    def test_image_by_the_distance_to_the_ground(self, severity, alpha):
        """A pixel v rows below the horizon sees the ground where it has fallen 1.5 m."""
        image = np.zeros((80, 160, 3), np.uint8)
        damaged = fog(severity).damage_image(image, 'CAM')
        assert damaged.dtype == np.uint8
        # In the middle of cells of 8 x 8 pixels nothing is interpolated but one pixel to the next.
        for row, column in [(52, 84), (68, 84), (76, 4), (76, 156)]:
            ray = np.array([(column - 80) / 100, (row - 40) / 100, 1.0])
            distance = 1.5 / ray[1] * np.linalg.norm(ray)
            assert distance < 50
            expected = GREY * (1 - np.exp(-alpha * distance))
            assert damaged[row, column, 0] == pytest.approx(expected, abs=3)

    def test_sky_counts_as_fifty_metres_away(self, severity, alpha):
        image = np.full((80, 160, 3), 20, np.uint8)
        damaged = fog(severity).damage_image(image, 'CAM')[:36]
        left = np.exp(-alpha * 50)
        np.testing.assert_allclose(damaged, 20 * left + GREY * (1 - left), atol=1)


def test_other_points_in_each_cloud_but_the_same_again():
    first, second = cloud(200, 10.0), cloud(200, 10.0)[::-1].copy()
    drawn = fog()
    kept = drawn.damage_points(first, np.eye(4), 0.0)
    np.testing.assert_array_equal(kept, fog().damage_points(first, np.eye(4), 0.0))
    again = pickle.loads(pickle.dumps(drawn)).damage_points(first, np.eye(4), 0.0)
    np.testing.assert_array_equal(kept, again)
    places = [set(map(tuple, c[:, :3])) for c in (kept, drawn.damage_points(second, np.eye(4), 0))]
    assert places[0] != places[1]
    other_sample = fog(token='abd').damage_points(first, np.eye(4), 0.0)
    assert not np.array_equal(other_sample, kept)


def test_empty_cloud():
    assert fog().damage_points(np.zeros((0, 5), np.float32), np.eye(4), 0.0).shape == (0, 5)


@pytest.mark.parametrize('shape', [(80, 160), (900, 1600), (5, 7)])
def test_image_of_any_size(shape):
    image = np.zeros((*shape, 3), np.uint8)
    damaged = fog().damage_image(image, 'CAM')
    assert damaged.shape == image.shape
    assert damaged.min() > 0
    assert not image.any()


def test_fog_follows_the_camera_not_the_image():
    """A camera that looks down sees ground and no sky; one that is tilted, a slanting horizon."""
    down = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, -1, 2.0], [0, 0, 0, 1]])
    drawn = fog(camera={**CAMERA, 'cam2ego': down})
    image = np.zeros((80, 160, 3), np.uint8)
    seen = drawn.damage_image(image, 'CAM')
    assert seen[40, 80, 0] == pytest.approx(GREY * (1 - np.exp(-0.03 * 2)), abs=1)
    roll = np.eye(4)
    roll[:2, :2] = [[0, -1], [1, 0]]
    seen = fog(camera={**CAMERA, 'cam2ego': FORWARD @ roll}).damage_image(image, 'CAM')
    assert seen[:, :60].std(axis=0).max() < 3
    assert abs(int(seen[40, 4, 0]) - int(seen[40, 150, 0])) > 30


def test_camera_health_is_the_light_that_comes_through():
    drawn = fog(3)
    health = drawn.camera_health('CAM', (10, 20))
    assert health.dtype == np.float32
    image = np.zeros((80, 160, 3), np.uint8)
    clear = 1 - drawn.damage_image(image, 'CAM')[..., 0] / GREY
    seen = clear.reshape(10, 8, 20, 8).mean(axis=(1, 3))
    np.testing.assert_allclose(health, seen, atol=0.05)
    assert health[:5].max() == pytest.approx(np.exp(-0.06 * 50), abs=1e-3)
    assert (np.diff(health[5:, 10]) >= 0).all()
    assert health[-1, 10] > 0.6


def test_key_tells_what_was_drawn():
    assert fog().key == fog().key
    elsewhere = {**CAMERA, 'cam2ego': np.array(FORWARD) * 1.01}
    keys = {d.key for d in (fog(), fog(1), fog(token='abd'), fog(camera=elsewhere))}
    assert len(keys) == 4


def test_sample_without_cameras():
    drawn = Fog()(dict(token='abc'))['failures'][0]
    assert len(drawn.damage_points(cloud(100, 40.0), np.eye(4), 0.0)) < 100


def test_camera_without_a_pose():
    with pytest.raises(KeyError, match='lidar2cam'):
        fog(camera=dict(cam2img=CAMERA['cam2img']))
