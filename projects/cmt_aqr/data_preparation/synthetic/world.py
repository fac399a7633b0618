"""Scenes: an ego vehicle on an arc and objects on straight lines, none ever touching another.

Everything moves by a formula of time, so that any sensor can be asked at any moment. Objects exist,
for the sensors and for the annotations alike, only while their centre is within the draw distance
of the ego.
Frames: global and ego have z up and the ground at z = 0; all rotations are yaws.
"""

import colorsys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .raycast import Box
from .taxonomy import CLASSES, IGNORED_CLASSES, Look, ObjectClass, Part

# The annotated box is this many metres larger than the solid on every side but the ground, as a
# human annotator's is: range noise then leaves the points inside the box.
ANNOTATION_MARGIN = 0.04
# Largest relative deviation of a size from its class's mean.
SIZE_SPREAD = 0.1
# Chance of an object to move, where its class can.
MOVING_SHARE = 0.5
# Metres between which global x and y of the ego lie at time 0, well inside the map.
SCENE_ORIGIN = (150.0, 450.0)
# Metres a second, and radians a second to either side.
EGO_TOP_SPEED = 2.5
EGO_TURN = np.radians(4.0)
# Length and width of the ego vehicle and its middle ahead of the rear axle, in metres.
EGO_SIZE = np.array([4.9, 2.1])
EGO_MIDDLE = 1.3
# Least gap in metres between the ego and an object, and between objects.
EGO_CLEARANCE = 1.0
CLEARANCE = 0.3
# Metres from the ego at which objects are placed at the nearest.
NEAREST = 4.0
# Seconds between the moments at which gaps are checked.
TIME_STEP = 0.1
# Objects in range: the mean a scene aims for and the most in any keyframe.
MEAN_COUNT = (14.0, 16.0)
TOP_COUNT = 18
# Objects drawn for a scene before it is left less full than it aimed for.
TRIES = 600
# Places tried for an object of an ignored class before the scene goes without it.
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
        # The chord of an arc points along its middle heading; sinc keeps the straight case exact.
        middle = self.yaw + self.turn * times / 2
        chord = self.speed * times * np.sinc(self.turn * times / 2 / np.pi)
        x = self.x + chord * np.cos(middle)
        y = self.y + chord * np.sin(middle)
        return np.stack([x, y, self.yaw + self.turn * times], axis=-1)


@dataclass(frozen=True)
class Actor:
    """One object through a scene.

    Attributes:
        kind: Its class.
        size: (3,) length, width, height of the annotated box in metres.
        start: (2,) global position of the centre at time 0.
        yaw: Global heading in radians, constant.
        speed: Metres per second along the heading.
        reflectivity: Its LiDAR intensity, 0 to 255.
        base, accent: Its (3,) RGB colours, 0 to 1.
    """

    kind: ObjectClass
    size: np.ndarray
    start: np.ndarray
    yaw: float
    speed: float
    reflectivity: float
    base: np.ndarray
    accent: np.ndarray

    @property
    def moving(self) -> bool:
        """Whether it moves at all during the scene."""
        return self.speed > 0

    @property
    def attribute(self) -> str:
        """nuScenes attribute, empty where its class has none."""
        return self.kind.moving_attribute if self.moving else self.kind.still_attribute

    @property
    def parts(self) -> tuple[Part, ...]:
        """The cuboids it is made of."""
        shape = self.kind.shape
        if self.moving or shape.still_parts is None:
            return shape.parts
        return shape.still_parts

    def positions(self, times: np.ndarray) -> np.ndarray:
        """(T, 2) global centres at (T,) times in seconds."""
        heading = np.array([np.cos(self.yaw), np.sin(self.yaw)])
        return self.start + self.speed * np.asarray(times, float)[..., None] * heading

    def solid_boxes(self, box: Box) -> list[Box]:
        """The cuboids of the object whose annotated box stands at ``box``."""
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
    """An object in draw distance: its index in the scene, itself, and its box in the ego frame."""

    index: int
    actor: Actor
    box: Box


@dataclass(frozen=True)
class Scene:
    """A scene and its light.

    Attributes:
        path: The ego vehicle's path.
        actors: All objects of the scene.
        draw_distance: Metres from the ego beyond which objects do not exist.
        light: (3,) unit vector towards the sun, global.
        exposure: Factor on all brightness.
        ground, sky, haze: (3,) RGB colours of the ground, the zenith and the horizon, 0 to 1.
    """

    path: EgoPath
    actors: tuple[Actor, ...]
    draw_distance: float
    light: np.ndarray
    exposure: float
    ground: np.ndarray
    sky: np.ndarray
    haze: np.ndarray

    def in_range(self, times: np.ndarray) -> np.ndarray:
        """(A, T) whether each actor exists at each of the (T,) times in seconds."""
        ego = self.path.poses(times)
        return np.array([_in_range(a, ego, times, self.draw_distance) for a in self.actors])

    def visible(self, time: float) -> list[Visible]:
        """The objects in draw distance at ``time`` seconds, boxes in the ego frame."""
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
    """Draw a scene.

    Objects are added one by one, the class with the fewest annotations first, until the mean number
    in range reaches its target. Each stays in range for one unbroken stretch of at least two
    keyframes, so that the official velocity (a difference of annotations) is defined for every box.
    Objects of ignored classes come last and from a generator of their own: everything else is the
    same with and without them.

    Args:
        rng: The scene's own source of chance.
        keyframe_times: (K,) seconds, ascending, K >= 2.
        draw_distance: Metres.
        ignored_objects: Objects of :data:`.taxonomy.IGNORED_CLASSES` to add, where there is room.

    Returns:
        The scene; boxes of its actors and of the ego never overlap.
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
    """Add objects of the ignored classes, by turns."""
    crowd.top_count += count
    for number in range(count):
        kind = IGNORED_CLASSES[number % len(IGNORED_CLASSES)]
        for _ in range(IGNORED_TRIES):
            actor = _sample_actor(rng, kind, crowd.path, crowd.keyframe_times, crowd.draw_distance)
            if crowd.try_to_add(actor):
                break


class _Crowd:
    """The objects placed so far and what a further one must respect."""

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
    """Whether two moving rectangles ever come closer than ``clearance`` along a separating axis.

    Args:
        a, b: Centres (T, 2), yaws (T,) and size (2,) (length, width) of each rectangle.
        clearance: Metres.
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
    """An object somewhere around the ego at some moment of the scene."""
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
    return dict(
        light=np.array([level * np.cos(bearing), level * np.sin(bearing), np.sin(height)]),
        exposure=float(rng.uniform(0.85, 1.1)),
        ground=grey * rng.uniform(0.93, 1.07, size=3),
        sky=np.array([0.45, 0.62, 0.90]) * rng.uniform(0.85, 1.1, size=3),
        haze=np.array([0.82, 0.86, 0.90]) * rng.uniform(0.92, 1.05),
    )
