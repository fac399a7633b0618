"""Actors placed so far in a scene, and the constraints on further ones."""

import numpy as np

from .actors import Actor, Track

# Length and width of the ego vehicle, and distance of its centre from the rear axle, metres.
EGO_SIZE = np.array([4.9, 2.1])
EGO_MIDDLE = 1.3
# Smallest gap between the ego and an object, and between objects, metres.
EGO_CLEARANCE = 0.5
CLEARANCE = 0.15
# Maximum number of objects in any keyframe.
TOP_COUNT = 45

Footprint = tuple[np.ndarray, np.ndarray, np.ndarray]


class Crowd:
    """Actors of a scene that do not touch.

    Args:
        times: (T,) seconds at which gaps are checked.
        keyframe_times: (K,) seconds.
        draw_distance: distance from the ego up to which objects exist, metres.

    Attributes:
        actors: actors placed so far.
        range: distance from the ego up to which the next actors exist, metres.
        ego: poses of the ego vehicle's rear axle, once :meth:`set_ego` was called.
    """

    def __init__(self, times: np.ndarray, keyframe_times: np.ndarray, draw_distance: float):
        self.times, self.keyframe_times, self.range = times, keyframe_times, draw_distance
        self.actors: list[Actor] = []
        self.ego: Track | None = None
        self._footprints: list[Footprint] = []
        self._centres = np.empty((0, len(times), 2), np.float32)
        self._radii = np.empty(0, np.float32)
        self._counts = np.zeros(len(keyframe_times), int)

    def set_ego(self, track: Track) -> None:
        """Places the ego vehicle by the poses of its rear axle."""
        self.ego = track
        poses = track.poses(self.times)
        heading = np.stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])], axis=-1)
        grown = EGO_SIZE + 2 * (EGO_CLEARANCE - CLEARANCE)
        self._occupy((poses[:, :2] + EGO_MIDDLE * heading, poses[:, 2], grown))

    def try_to_add(self, actor: Actor, *, footprint: np.ndarray | None = None) -> bool:
        """Adds an actor unless it breaks a constraint; returns whether it was added.

        Args:
            actor: the actor.
            footprint: length and width that have to be free, metres; by default those of its box.
        """
        seen = self._seen(actor)
        if not seen.any():
            return False
        if actor.annotated:
            unbroken = np.count_nonzero(np.diff(seen.astype(int), prepend=0, append=0)) == 2
            if seen.sum() < 2 or not unbroken or (self._counts[seen] >= TOP_COUNT).any():
                return False
        poses = actor.track.poses(self.times)
        size = actor.size[:2] if footprint is None else footprint
        print_ = (poses[:, :2], poses[:, 2], size)
        if self._collides(print_):
            return False
        self._occupy(print_)
        self.actors.append(actor)
        self._counts += seen & actor.annotated
        return True

    def _seen(self, actor: Actor) -> np.ndarray:
        gap = actor.track.poses(self.keyframe_times) - self.ego.poses(self.keyframe_times)
        return np.hypot(gap[:, 0], gap[:, 1]) < self.range

    def _occupy(self, footprint: Footprint) -> None:
        self._footprints.append(footprint)
        self._centres = np.concatenate([self._centres, footprint[0][None].astype(np.float32)])
        self._radii = np.append(self._radii, np.float32(np.hypot(*footprint[2]) / 2))

    def _collides(self, footprint: Footprint) -> bool:
        centres, _, size = footprint
        gaps = np.square(self._centres - centres.astype(np.float32)).sum(-1).min(-1)
        near = gaps < (self._radii + np.hypot(*size) / 2 + CLEARANCE + 0.1) ** 2
        return any(
            footprints_overlap(footprint, self._footprints[i], CLEARANCE)
            for i in np.flatnonzero(near)
        )


def footprints_overlap(a: Footprint, b: Footprint, clearance: float) -> bool:
    """Whether two moving rectangles ever come closer than ``clearance``, by their separating axes.

    Args:
        a, b: centres (T, 2), yaws (T,) and size (2,) (length, width) of each rectangle.
        clearance: metres.
    """
    (centre_a, yaw_a, size_a), (centre_b, yaw_b, size_b) = a, b
    gap = centre_b - centre_a
    cos, sin = np.abs(np.cos(yaw_b - yaw_a)), np.abs(np.sin(yaw_b - yaw_a))
    apart = np.zeros(len(gap), bool)
    for yaw, own, other in ((yaw_a, size_a / 2, size_b / 2), (yaw_b, size_b / 2, size_a / 2)):
        along = np.abs(gap[:, 0] * np.cos(yaw) + gap[:, 1] * np.sin(yaw))
        across = np.abs(gap[:, 1] * np.cos(yaw) - gap[:, 0] * np.sin(yaw))
        apart |= along > own[0] + other[0] * cos + other[1] * sin + clearance
        apart |= across > own[1] + other[0] * sin + other[1] * cos + clearance
    return not apart.all()
