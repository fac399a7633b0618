"""Centre lines of roads, and lanes parallel to them.

Frame: global, x and y in metres, yaw counter-clockwise. A place on a road is given by the distance
along its centre line and the offset to the left of it, both in metres.
"""

from dataclasses import dataclass

import numpy as np

# Distance of the samples of a centre line, metres.
STEP = 0.5
# Length over which the curvature changes between two bends, metres.
TRANSITION = 8.0


class CentreLine:
    """Curve through the origin of its distances.

    Args:
        pose: (3,) x, y and yaw at distance 0.
        distances: (N,) ascending, ``STEP`` apart, with 0 among them.
        curvature: (N,) 1 / metres, positive to the left.
    """

    def __init__(self, pose: np.ndarray, distances: np.ndarray, curvature: np.ndarray):
        self.distances, self.curvature = distances, curvature
        start = int(np.argmin(np.abs(distances)))
        yaw = np.concatenate([[0.0], np.cumsum((curvature[1:] + curvature[:-1]) / 2 * STEP)])
        self.yaw = yaw - yaw[start] + pose[2]
        middle = (self.yaw[1:] + self.yaw[:-1]) / 2
        x = np.concatenate([[0.0], np.cumsum(np.cos(middle) * STEP)])
        y = np.concatenate([[0.0], np.cumsum(np.sin(middle) * STEP)])
        self.x, self.y = x - x[start] + pose[0], y - y[start] + pose[1]

    def poses(self, along: np.ndarray, left: np.ndarray | float = 0.0) -> np.ndarray:
        """(..., 3) global x, y and yaw at distances (...) and offsets to the left, metres."""
        x, y, yaw = (np.interp(along, self.distances, v) for v in (self.x, self.y, self.yaw))
        return np.stack([x - left * np.sin(yaw), y + left * np.cos(yaw), yaw], axis=-1)

    def gap(self, points: np.ndarray) -> np.ndarray:
        """(...) distance of points (..., 2) from the centre line, metres."""
        x, y = points[..., :1] - self.x, points[..., 1:] - self.y
        return np.sqrt((x**2 + y**2).min(-1))


@dataclass(frozen=True)
class Lane:
    """Lane of a road; its traffic keeps to the right of the centre line.

    Attributes:
        line: centre line of the road.
        forward: +1 or -1, direction of travel along the centre line.
        offset: of the middle of the lane to the left of the centre line, metres.
    """

    line: CentreLine
    forward: int
    offset: float

    def poses(self, travelled: np.ndarray, left: np.ndarray | float = 0.0) -> np.ndarray:
        """(..., 3) global x, y and yaw at distances (...) in the direction of travel.

        Args:
            travelled: distances, negative along the centre line for a lane that runs backwards.
            left: offset to the left of the middle, in the direction of travel, metres.
        """
        poses = self.line.poses(self.forward * travelled, self.offset + self.forward * left)
        poses[..., 2] += 0.0 if self.forward > 0 else np.pi
        return poses


def bending_line(rng: np.random.Generator, pose: np.ndarray, length: float) -> CentreLine:
    """Samples a centre line of straights, gentle curves and, in places, tight bends.

    Args:
        rng: generator of the road.
        pose: (3,) x, y and yaw at distance 0.
        length: of the line before and behind distance 0, metres.
    """
    distances = np.arange(-length, length + STEP, STEP)
    curvature = np.zeros(len(distances))
    at, turned = rng.uniform(-length, -length + 40), 0.0
    while at < length:
        radius = rng.choice([20.0, 40.0, 80.0, 200.0], p=[0.15, 0.25, 0.3, 0.3])
        # A bend to the other side than the last keeps the road from meeting itself.
        side = -np.sign(turned) if turned else rng.choice([-1, 1])
        bend = min(rng.uniform(15, 45), 1.3 * radius)
        curvature[(distances >= at) & (distances < at + bend)] = side / radius
        turned += side * bend / radius
        at += bend + rng.uniform(15, 60)
    width = round(TRANSITION / STEP)
    return CentreLine(pose, distances, np.convolve(curvature, np.ones(width) / width, mode='same'))


def straight_line(pose: np.ndarray, length: float) -> CentreLine:
    """Returns a straight centre line of ``length`` metres before and behind ``pose``."""
    distances = np.arange(-length, length + STEP, STEP)
    return CentreLine(pose, distances, np.zeros(len(distances)))
