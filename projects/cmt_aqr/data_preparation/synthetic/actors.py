"""Objects and scenery of a scene, their tracks, and what the ego vehicle sees of them.

Frames: global and ego have z up and the ground at z = 0; all rotations are yaws.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from .classes import ObjectClass, Part
from .paint import Paint, paint_surface
from .raycast import Box

# Margin between the annotated box and the solid on every side except the ground, metres. As with
# human annotators, points with range noise then stay inside the box.
ANNOTATION_MARGIN = 0.04
# Largest relative deviation of a size from the mean of its class.
SIZE_SPREAD = 0.1
# Speed above which an object counts as moving, metres per second; as in MMDetection3D's metric.
MOVING_SPEED = 0.2


@dataclass(frozen=True)
class Track:
    """Poses over time, linear between samples.

    Attributes:
        times: (T,) seconds, ascending; a single one for what never moves.
        samples: (T, 3) global x, y and yaw, metres and radians, without jumps of the yaw.
    """

    times: np.ndarray
    samples: np.ndarray

    @classmethod
    def still(cls, x: float, y: float, yaw: float) -> 'Track':
        """Returns the track of what stands at a pose."""
        return cls(np.zeros(1), np.array([[x, y, yaw]], float))

    def poses(self, times: np.ndarray) -> np.ndarray:
        """(T, 3) global x, y and yaw at (T,) times in seconds."""
        times = np.asarray(times, float)
        return np.stack([np.interp(times, self.times, v) for v in self.samples.T], axis=-1)

    def speed(self, time: float) -> float:
        """Returns the speed in metres per second at a given time."""
        before, after = self.poses(np.array([time - 0.05, time + 0.05]))[:, :2]
        return float(np.hypot(*(after - before)) / 0.1)


@dataclass(frozen=True)
class Actor:
    """Object, or part of the scenery.

    Attributes:
        kind: its class.
        size: (3,) length, width, height of the annotated box, metres.
        track: poses of its centre.
        reflectivity: LiDAR intensity, 0 to 255.
        base, accent: (3,) RGB colours, 0 to 1.
        driven: whether somebody sits in or on it.
    """

    kind: ObjectClass
    size: np.ndarray
    track: Track
    reflectivity: float
    base: np.ndarray
    accent: np.ndarray
    driven: bool = False

    @property
    def annotated(self) -> bool:
        """Whether it is an object; scenery is not annotated."""
        return bool(self.kind.category)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Cuboids of the object."""
        shape = self.kind.shape
        return shape.parts if self.driven or shape.still_parts is None else shape.still_parts

    def attribute(self, time: float) -> str:
        """Returns the nuScenes attribute at a time; empty if the class has none."""
        if self.track.speed(time) > MOVING_SPEED:
            return self.kind.moving_attribute
        return self.kind.stopped_attribute if self.driven else self.kind.parked_attribute

    def solid_boxes(self, box: Box) -> list[Box]:
        """Returns the object's cuboids in the frame of its annotated box."""
        margin = ANNOTATION_MARGIN if self.annotated else 0.0
        solid = self.size - np.array([2, 2, 1]) * margin
        ground = box.centre - [0, 0, self.size[2] / 2]
        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
        boxes = []
        for part in self.parts:
            low, high = np.array(part.low) * solid, np.array(part.high) * solid
            x, y, z = (low + high) / 2
            centre = ground + np.array([cos * x - sin * y, sin * x + cos * y, z])
            boxes.append(Box(centre, high - low, box.yaw))
        return boxes

    def paint(
        self, part: np.ndarray, axis: np.ndarray, side: np.ndarray, local: np.ndarray
    ) -> Paint:
        """Returns the colours of points on the object, see :func:`.paint.paint_surface`."""
        return paint_surface(
            self.kind.look,
            size=self.size,
            base=self.base,
            accent=self.accent,
            roles=np.array([p.role for p in self.parts])[part],
            axis=axis,
            side=side,
            local=local,
        )


@dataclass(frozen=True)
class Visible:
    """Actor within the draw distance, with its index in the scene and its box in the ego frame."""

    index: int
    actor: Actor
    box: Box


def make_actor(
    rng: np.random.Generator, kind: ObjectClass, track: Track, *, driven: bool = False
) -> Actor:
    """Samples size, intensity and colours of an actor."""
    look = kind.look
    jitter = np.array(look.spread) * rng.uniform(-1, 1, 3)
    hue, saturation, value = np.array(look.base) + jitter
    base = colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))
    accent = np.array(colorsys.hsv_to_rgb(*look.accent)) * rng.uniform(0.85, 1.05)
    return Actor(
        kind=kind,
        size=np.array(kind.shape.size) * rng.uniform(1 - SIZE_SPREAD, 1 + SIZE_SPREAD, size=3),
        track=track,
        reflectivity=float(kind.shape.reflectivity * rng.uniform(0.8, 1.2)),
        base=np.array(base),
        accent=np.clip(accent, 0, 1),
        driven=driven,
    )
