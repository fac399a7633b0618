"""Ego futures of scenes whose path is known."""

import numpy as np
import pytest

from projects.cmt_aqr.planning.ego_future import COMMANDS, constant_velocity, planar, scene_futures


def pose(x, y, yaw):
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:2, 3] = x, y
    return matrix


def circle(radius, speed, count, start=0.3):
    """Poses on a circle to the left, at a place and heading that are not those of the frame."""
    angles = start + speed / radius * 0.5 * np.arange(count)
    return np.stack([pose(7 + radius * np.sin(a), -3 - radius * np.cos(a), a) for a in angles])


def times(count):
    return 0.5 * np.arange(count)


def test_straight_ahead_is_along_x_of_the_ego_frame():
    yaw = 2.0
    poses = np.stack([pose(2 * i * np.cos(yaw), 2 * i * np.sin(yaw), yaw) for i in range(8)])
    future = scene_futures(poses, times(8))[1]
    np.testing.assert_allclose(future.waypoints, constant_velocity(4.0), atol=1e-6)
    np.testing.assert_allclose(future.status, [4.0, 0.0], atol=1e-6)
    assert COMMANDS[future.command] == 'straight'


def test_a_circle_turns_left_by_its_rate():
    future = scene_futures(circle(radius=10.0, speed=5.0, count=8), times(8))[1]
    turned = 0.25 * np.arange(1, 7)
    expected = np.stack([10 * np.sin(turned), 10 * (1 - np.cos(turned)), turned], axis=1)
    np.testing.assert_allclose(future.waypoints, expected, atol=1e-5)
    # The chord of a quarter radian, projected on the heading before it.
    np.testing.assert_allclose(future.status, [20 * np.sin(0.25), 0.5], rtol=1e-5)
    assert COMMANDS[future.command] == 'left'


@pytest.mark.parametrize(('side', 'command'), [(-1, 'right'), (1, 'left')])
def test_the_side_of_a_turn(side, command):
    poses = circle(radius=10.0 * side, speed=5.0, count=7, start=0.0)
    assert COMMANDS[scene_futures(poses, times(7))[0].command] == command


def test_a_scene_ends():
    futures = scene_futures(circle(radius=30.0, speed=5.0, count=4), times(4))
    assert [future.mask.tolist() for future in futures] == [
        [True] * kept + [False] * (6 - kept) for kept in (3, 2, 1, 0)
    ]
    assert not futures[2].waypoints[1:].any()
    assert COMMANDS[futures[3].command] == 'straight'


def test_the_first_keyframe_has_no_status():
    futures = scene_futures(circle(radius=30.0, speed=5.0, count=3), times(3))
    assert np.isnan(futures[0].status).all()
    assert np.isfinite(futures[1].status).all()


def test_planar_reads_a_pose():
    np.testing.assert_allclose(planar(pose(1.0, -2.0, 0.7)), [1.0, -2.0, 0.7])
