"""Scenes: an ego vehicle on an arc and objects on straight lines, without collisions.

Poses are functions of time, so sensors can record at any moment. Objects exist, for the sensors and
in the annotations, only while their centre is within the draw distance of the ego.
Frames: global and ego have z up and the ground at z = 0; all rotations are yaws.
"""

import colorsys
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .paint import PATTERNS, Paint
from .raycast import Box
from .taxonomy import CLASSES, IGNORED_CLASSES, Look, ObjectClass, Part
from .weather import Weather

# Margin between the annotated box and the solid on every side except the ground, metres. As with
# human annotators, points with range noise then stay inside the box.
ANNOTATION_MARGIN = 0.04
# Largest relative deviation of a size from the mean of its class.
SIZE_SPREAD = 0.1
# Probability that an object of a class that can move does move.
MOVING_SHARE = 0.5
# Range of global x and y of the ego at time 0, well inside the map, metres.
SCENE_ORIGIN = (150.0, 450.0)
# Metres per second, and radians per second to either side.
EGO_TOP_SPEED = 2.5
EGO_TURN = np.radians(4.0)
# Length and width of the ego vehicle, and distance of its centre from the rear axle, metres.
EGO_SIZE = np.array([4.9, 2.1])
EGO_MIDDLE = 1.3
# Smallest gap between the ego and an object, and between objects, metres.
EGO_CLEARANCE = 1.0
CLEARANCE = 0.3
# Smallest distance at which objects are placed from the ego, metres.
NEAREST = 4.0
# Interval at which gaps are checked, seconds.
TIME_STEP = 0.1
# Objects in range: the target of the mean, and the maximum in any keyframe.
MEAN_COUNT = (14.0, 16.0)
TOP_COUNT = 18
# Number of objects drawn for a scene before it may miss the target.
TRIES = 600
GLASS = np.array([0.16, 0.19, 0.23])
RIDER_SHADE = 0.75
# Number of places tried for an object of an ignored class.
IGNORED_TRIES = 50


@dataclass(frozen=True)
class EgoPath:
    """Constant speed and turn rate from a pose at time 0 (metres, radians, seconds)."""

    x: float
    y: float
    yaw: float
    speed: float
    turn: float

    def poses(self, times: np.ndarray) -> np.ndarray:
        """(T, 3) global x, y and yaw at (T,) times in seconds."""
        times = np.asarray(times, float)
        # The chord of an arc points along its mean heading; sinc makes the straight case exact.
        middle = self.yaw + self.turn * times / 2
        chord = self.speed * times * np.sinc(self.turn * times / 2 / np.pi)
        x = self.x + chord * np.cos(middle)
        y = self.y + chord * np.sin(middle)
        return np.stack([x, y, self.yaw + self.turn * times], axis=-1)


@dataclass(frozen=True)
class Actor:
    """Object of a scene.

    Attributes:
        kind: class of the object.
        size: (3,) length, width, height of the annotated box, metres.
        start: (2,) global position of the centre at time 0.
        yaw: global heading, radians.
        speed: metres per second along the heading.
        reflectivity: LiDAR intensity, 0 to 255.
        base, accent: (3,) RGB colours, 0 to 1.
    """

    kind: ObjectClass
    size: np.ndarray
    start: np.ndarray
    yaw: float
    speed: float
    reflectivity: float
    base: np.ndarray
    accent: np.ndarray
    annotated: ClassVar[bool] = True

    @property
    def track(self) -> 'Actor':
        """The object itself, which has the poses of a track."""
        return self

    @property
    def moving(self) -> bool:
        """Whether the object moves during the scene."""
        return self.speed > 0

    def attribute(self, time: float) -> str:
        """Returns the nuScenes attribute, the same at any time; empty if the class has none."""
        return self.kind.moving_attribute if self.moving else self.kind.still_attribute

    @property
    def parts(self) -> tuple[Part, ...]:
        """Cuboids of the object."""
        shape = self.kind.shape
        if self.moving or shape.still_parts is None:
            return shape.parts
        return shape.still_parts

    def positions(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) global centres at (T,) times in seconds."""
        heading = np.array([np.cos(self.yaw), np.sin(self.yaw)])
        return self.start + self.speed * np.asarray(times, float)[..., None] * heading

    def poses(self, times: np.ndarray) -> np.ndarray:
        """(T, 3) global x, y and yaw at (T,) times in seconds."""
        positions = self.positions(times)
        yaw = np.full((*positions.shape[:-1], 1), self.yaw)
        return np.concatenate([positions, yaw], axis=-1)

    def paint(
        self, part: np.ndarray, axis: np.ndarray, side: np.ndarray, local: np.ndarray
    ) -> Paint:
        """Returns the colours of points on the object, see :func:`.paint.paint_surface`."""
        look = self.kind.look
        u = np.where(axis == 0, local[:, 1], local[:, 0])
        v = np.where(axis == 2, local[:, 1], local[:, 2])
        accent = PATTERNS[look.pattern](u, v, local[:, 2] / self.size[2], look.period)
        colours = np.where(accent[:, None], self.accent, self.base)
        roles = np.array([p.role for p in self.parts])[part]
        colours[roles == 'glass'] = GLASS
        colours[roles == 'rider'] *= RIDER_SHADE
        return Paint(colours, np.zeros(len(colours), bool))

    def solid_boxes(self, box: Box) -> list[Box]:
        """Returns the object's cuboids in the frame of its annotated box."""
        solid = self.size - np.array([2, 2, 1]) * ANNOTATION_MARGIN
        ground = box.centre - [0, 0, self.size[2] / 2]
        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
        boxes = []
        for part in self.parts:
            low, high = np.array(part.low) * solid, np.array(part.high) * solid
            x, y, z = (low + high) / 2
            centre = ground + np.array([cos * x - sin * y, sin * x + cos * y, z])
            boxes.append(Box(centre, high - low, box.yaw))
        return boxes


@dataclass(frozen=True)
class Visible:
    """Object within the draw distance, with its index in the scene and its box in the ego frame."""

    index: int
    actor: Actor
    box: Box


@dataclass(frozen=True)
class Scene:
    """Objects and light of a scene.

    Attributes:
        path: path of the ego vehicle.
        actors: all objects of the scene.
        draw_distance: distance from the ego beyond which objects do not exist, metres.
        weather: light, and colours of the sky.
        ground_colour: (3,) RGB, 0 to 1.
    """

    path: EgoPath
    actors: tuple[Actor, ...]
    draw_distance: float
    weather: Weather
    ground_colour: np.ndarray
    description: ClassVar[str] = 'Synthetic: boxes on a plane, made by a ray caster.'

    def ground(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) colours at global points (N, 2), metres."""
        return np.broadcast_to(self.ground_colour, (len(points), 3))

    def in_range(self, times: np.ndarray) -> np.ndarray:
        """(A, T) bool: whether each actor exists at each of the times (T,) in seconds."""
        ego = self.path.poses(times)
        return np.array([_in_range(a, ego, times, self.draw_distance) for a in self.actors])

    def visible(self, time: float) -> list[Visible]:
        """Returns the objects within the draw distance at ``time`` seconds."""
        times = np.array([time])
        ego_x, ego_y, ego_yaw = self.path.poses(times)[0]
        cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
        objects = []
        for index in np.flatnonzero(self.in_range(times)[:, 0]):
            actor = self.actors[index]
            x, y = actor.positions(times)[0] - (ego_x, ego_y)
            centre = np.array([cos * x + sin * y, cos * y - sin * x, actor.size[2] / 2])
            objects.append(Visible(int(index), actor, Box(centre, actor.size, actor.yaw - ego_yaw)))
        return objects


def sample_scene(
    rng: np.random.Generator,
    keyframe_times: np.ndarray,
    *,
    draw_distance: float,
    ignored_objects: int = 0,
) -> Scene:
    """Samples a scene.

    Objects are added one by one, the class with the fewest annotations first, until the mean number
    in range reaches its target. Each stays in range for one interval of at least two keyframes, so
    that the official velocity, a difference of annotations, is defined for every box. Objects of
    ignored classes come last and from a generator of their own, so that everything else is the same
    without them.

    Args:
        rng: generator of the scene.
        keyframe_times: (K,) seconds, ascending, K >= 2.
        draw_distance: metres.
        ignored_objects: maximum number of objects of :data:`.taxonomy.IGNORED_CLASSES`.

    Returns:
        A scene in which boxes of the objects and of the ego never overlap.
    """
    path = _sample_path(rng)
    # From one keyframe interval before the first, for its sweeps, to the last.
    interval = keyframe_times[1] - keyframe_times[0]
    times = np.arange(keyframe_times[0] - interval, keyframe_times[-1] + TIME_STEP, TIME_STEP)
    goal = rng.uniform(*MEAN_COUNT) * len(keyframe_times)
    crowd = _Crowd(path, times, keyframe_times, draw_distance)
    order = rng.permutation(len(CLASSES))
    for _ in range(TRIES):
        kind = CLASSES[min(order, key=lambda i: crowd.counts[CLASSES[i].name])]
        crowd.try_to_add(_sample_actor(rng, kind, path, keyframe_times, draw_distance))
        if crowd.per_keyframe.sum() >= goal:
            break
    light = _sample_light(rng)
    _add_ignored(crowd, rng.spawn(1)[0], ignored_objects)
    return Scene(path, tuple(crowd.actors), draw_distance, **light)


def _add_ignored(crowd: '_Crowd', rng: np.random.Generator, count: int) -> None:
    """Adds objects of the ignored classes in turn."""
    crowd.top_count += count
    for number in range(count):
        kind = IGNORED_CLASSES[number % len(IGNORED_CLASSES)]
        for _ in range(IGNORED_TRIES):
            actor = _sample_actor(rng, kind, crowd.path, crowd.keyframe_times, crowd.draw_distance)
            if crowd.try_to_add(actor):
                break


class _Crowd:
    """Objects placed so far, and the constraints on further ones."""

    def __init__(
        self, path: EgoPath, times: np.ndarray, keyframe_times: np.ndarray, draw_distance: float
    ):
        self.path, self.top_count = path, TOP_COUNT
        self.times, self.keyframe_times, self.draw_distance = times, keyframe_times, draw_distance
        self.keyframe_ego = path.poses(keyframe_times)
        ego = path.poses(times)
        heading = np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], axis=-1)
        grown = EGO_SIZE + 2 * (EGO_CLEARANCE - CLEARANCE)
        self.tracks = [(ego[:, :2] + EGO_MIDDLE * heading, ego[:, 2], grown)]
        self.actors: list[Actor] = []
        self.counts: Counter[str] = Counter()
        self.per_keyframe = np.zeros(len(keyframe_times), int)

    def try_to_add(self, actor: Actor) -> bool:
        seen = _in_range(actor, self.keyframe_ego, self.keyframe_times, self.draw_distance)
        unbroken = np.count_nonzero(np.diff(seen.astype(int), prepend=0, append=0)) == 2
        if seen.sum() < 2 or not unbroken or (self.per_keyframe[seen] >= self.top_count).any():
            return False
        track = (actor.positions(self.times), np.full(len(self.times), actor.yaw), actor.size[:2])
        if any(tracks_overlap(track, other, CLEARANCE) for other in self.tracks):
            return False
        self.tracks.append(track)
        self.actors.append(actor)
        self.counts[actor.kind.name] += int(seen.sum())
        self.per_keyframe += seen
        return True


Track = tuple[np.ndarray, np.ndarray, np.ndarray]


def tracks_overlap(a: Track, b: Track, clearance: float) -> bool:
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


def _in_range(actor: Actor, ego: np.ndarray, times: np.ndarray, draw_distance: float) -> np.ndarray:
    gap = actor.positions(times) - ego[:, :2]
    return np.hypot(gap[:, 0], gap[:, 1]) < draw_distance


def _sample_path(rng: np.random.Generator) -> EgoPath:
    x, y = rng.uniform(*SCENE_ORIGIN, size=2)
    return EgoPath(
        x=float(x),
        y=float(y),
        yaw=float(rng.uniform(-np.pi, np.pi)),
        speed=float(rng.uniform(0, EGO_TOP_SPEED)),
        turn=float(rng.uniform(-EGO_TURN, EGO_TURN)),
    )


def _sample_actor(
    rng: np.random.Generator,
    kind: ObjectClass,
    path: EgoPath,
    keyframe_times: np.ndarray,
    draw_distance: float,
) -> Actor:
    """Samples an object around the ego at a random moment of the scene."""
    shape = kind.shape
    moment = rng.uniform(keyframe_times[0], keyframe_times[-1])
    distance, bearing = rng.uniform(NEAREST, draw_distance), rng.uniform(-np.pi, np.pi)
    yaw = float(rng.uniform(-np.pi, np.pi))
    moving = shape.speeds is not None and rng.random() < MOVING_SHARE
    speed = float(rng.uniform(*shape.speeds)) if moving else 0.0
    place = path.poses(np.array([moment]))[0, :2]
    place = place + distance * np.array([np.cos(bearing), np.sin(bearing)])
    return Actor(
        kind=kind,
        size=np.array(shape.size) * rng.uniform(1 - SIZE_SPREAD, 1 + SIZE_SPREAD, size=3),
        start=place - speed * moment * np.array([np.cos(yaw), np.sin(yaw)]),
        yaw=yaw,
        speed=speed,
        reflectivity=float(shape.reflectivity * rng.uniform(0.8, 1.2)),
        **_sample_colours(rng, kind.look),
    )


def _sample_colours(rng: np.random.Generator, look: Look) -> dict[str, np.ndarray]:
    hue, saturation, value = look.base
    hue = (hue + rng.uniform(-look.hue_spread, look.hue_spread)) % 1
    saturation, value = np.minimum(np.array([saturation, value]) * rng.uniform(0.85, 1.1, 2), 1)
    base = colorsys.hsv_to_rgb(hue, saturation, value)
    accent = np.array(colorsys.hsv_to_rgb(*look.accent)) * rng.uniform(0.85, 1.05)
    return dict(base=np.array(base), accent=np.clip(accent, 0, 1))


def _sample_light(rng: np.random.Generator) -> dict:
    bearing, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(35, 60))
    level = np.cos(height)
    grey = rng.uniform(0.36, 0.48)
    exposure = float(rng.uniform(0.85, 1.1))
    ground_colour = grey * rng.uniform(0.93, 1.07, size=3)
    weather = Weather(
        light=np.array([level * np.cos(bearing), level * np.sin(bearing), np.sin(height)]),
        exposure=exposure,
        sky=np.array([0.45, 0.62, 0.90]) * rng.uniform(0.85, 1.1, size=3),
        haze=np.array([0.82, 0.86, 0.90]) * rng.uniform(0.92, 1.05),
    )
    return dict(weather=weather, ground_colour=ground_colour)
