"""The ego vehicle's future waypoints, its status and its driving command, from poses alone.

The ego frame has x forward, y left and z up, in metres, with its origin on the ground below the
middle of the rear axle, as in nuScenes. Yaw is in radians, counter-clockwise.

Shapes: N keyframes of a scene, T future keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HORIZON = 6
"""T; nuScenes has two keyframes a second."""
STEP = 0.5  # seconds
COMMANDS = ('right', 'left', 'straight')
TURNING_OFFSET = 2.0
"""Lateral offset at the end of the horizon from which a command is a turn, metres, as in UniAD (Hu
et al., CVPR 2023)."""


class EgoFuture(NamedTuple):
    """What a planner learns from and is scored against, of one keyframe."""

    waypoints: np.ndarray
    """(T, 3): x, y and yaw in the ego frame of the keyframe; zero where ``mask`` is False"""
    mask: np.ndarray
    """(T,), bool: keyframes that the scene has"""
    status: np.ndarray
    """(2,): speed in m/s and turn rate in rad/s since the previous keyframe; NaN in the first"""
    command: int
    """index into :data:`COMMANDS`"""


def scene_futures(
    poses: np.ndarray, times: Sequence[float], *, horizon: int = HORIZON
) -> list[EgoFuture]:
    """Returns the future of every keyframe of a scene.

    Args:
        poses: (N, 4, 4), ego frame to global frame, in the order of time.
        times: N, seconds.
        horizon: T.
    """
    futures = []
    for index, pose in enumerate(poses):
        relative = planar(np.linalg.inv(pose) @ poses[index + 1 : index + 1 + horizon])
        waypoints = np.zeros((horizon, 3), dtype=np.float32)
        waypoints[: len(relative)] = relative
        mask = np.arange(horizon) < len(relative)
        status = np.full(2, np.nan, dtype=np.float32)
        if index:
            x, _, yaw = planar(np.linalg.inv(poses[index - 1]) @ pose)
            elapsed = times[index] - times[index - 1]
            status[:] = x / elapsed, yaw / elapsed
        futures.append(EgoFuture(waypoints, mask, status, _command(relative)))
    return futures


def planar(poses: np.ndarray) -> np.ndarray:
    """(..., 4, 4) -> (..., 3): x, y and yaw."""
    yaw = np.arctan2(poses[..., 1, 0], poses[..., 0, 0])
    return np.stack([poses[..., 0, 3], poses[..., 1, 3], yaw], axis=-1)


def constant_velocity(speed: np.ndarray, *, horizon: int = HORIZON) -> np.ndarray:
    """(..., T, 3): waypoints straight ahead at a constant speed (...), m/s."""
    seconds = STEP * np.arange(1, horizon + 1)
    forward = np.asarray(speed)[..., None] * seconds
    return np.stack([forward, 0 * forward, 0 * forward], axis=-1)


def _command(relative: np.ndarray) -> int:
    """The command for future waypoints (at most T, 3), by the lateral offset of the last one."""
    offset = relative[-1, 1] if len(relative) else 0.0
    if abs(offset) < TURNING_OFFSET:
        return COMMANDS.index('straight')
    return COMMANDS.index('left' if offset > 0 else 'right')
