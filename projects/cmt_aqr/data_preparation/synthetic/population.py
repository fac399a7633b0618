"""Who and what is on a street: traffic, parked vehicles, work zones, pedestrians, scenery."""

from collections.abc import Iterator

import numpy as np

from . import scenery
from .actors import Track, make_actor
from .classes import BY_NAME, IGNORED_CLASSES
from .crowd import EGO_MIDDLE, EGO_SIZE, Crowd
from .road import Lane
from .roadway import Roadway
from .traffic import Stop, bend_speed, drive

# Ranges of the mean speed that the vehicles of a scene want, metres per second, and of the mean gap
# between them, metres.
WANTED_SPEED = (4.0, 13.0)
MEAN_GAP = (6.0, 25.0)
# Stretch of the lanes with traffic, before and behind the ego's start, metres.
AHEAD, BEHIND = 230.0, 70.0
# Stretch of the roadside that is populated behind and ahead of the ego's way, metres.
REACH = 50.0

MOVING = dict(car=0.66, truck=0.1, bus=0.07, construction_vehicle=0.07, motorcycle=0.1)
CYCLES = dict(bicycle=0.7, motorcycle=0.3)
# What the next place of a parking strip has.
PARKED = dict(nothing=0.18, car=0.44, lorries=0.11, trailer=0.1, bus=0.05, cycles=0.05, work=0.07)
KERB_ROW = dict(pole=0.25, tree=0.25, bin=0.3, post=0.2)
PLOTS = dict(house=0.4, wall=0.15, poster=0.2, bush=0.25)
PROPS = dict(
    house=scenery.HOUSE,
    wall=scenery.WALL,
    poster=scenery.POSTER,
    bush=scenery.BUSH,
    pole=scenery.POLE,
    tree=scenery.TREE,
    bin=scenery.BIN,
    post=scenery.POST,
)


def _choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def add_traffic(rng: np.random.Generator, crowd: Crowd, roadway: Roadway) -> None:
    """Adds the ego vehicle and all that drives, which gives way to pedestrians on the crosswalk."""
    wanted, gap = rng.uniform(*WANTED_SPEED), rng.uniform(*MEAN_GAP)
    walk = _Crossers(rng, roadway, crowd.times)
    own = int(rng.integers(roadway.lanes))
    lanes = [(forward, number) for forward in (1, -1) for number in range(roadway.lanes)]
    # The ego comes first, since everything else has to keep clear of it.
    for forward, number in sorted(lanes, key=lambda lane: lane != (1, own)):
        fleet = _Fleet(rng, MOVING, wanted, gap, forward, ego=(forward, number) == (1, own))
        stops = [*roadway.stops(forward), *walk.stops(forward)]
        fleet.add_to(crowd, roadway.lane(forward, number), stops)
    for forward in (1, -1):
        fleet = _Fleet(rng, CYCLES, rng.uniform(3, 6), 25.0, forward)
        fleet.add_to(crowd, roadway.cycle_lane(forward), roadway.stops(forward))
    if roadway.crossing is not None:
        _add_crossing_traffic(rng, crowd, roadway, gap)
    walk.add_to(crowd)


def _add_crossing_traffic(
    rng: np.random.Generator, crowd: Crowd, roadway: Roadway, gap: float
) -> None:
    crossing = roadway.crossing
    at = -roadway.edge - 3.0
    stops = [Stop(at, -np.inf, crossing.start + 1.5), Stop(at, crossing.end - 3.0, np.inf)]
    for forward in (1, -1):
        lane = Lane(crossing.line, forward, -forward * roadway.lane_width / 2)
        fleet = _Fleet(rng, MOVING, rng.uniform(6, 9), gap, stretch=(-55.0, at - 1.0))
        fleet.add_to(crowd, lane, stops)


class _Fleet:
    """Vehicles of a lane, foremost first.

    Args:
        rng: generator of the vehicles.
        shares: probability of each class.
        wanted: mean speed without hindrance, metres per second.
        gap: mean gap between vehicles, metres.
        forward: +1 or -1, direction of travel along the road.
        ego: whether the ego vehicle is one of them, near distance 0.
        stretch: part of the lane with vehicles, metres; by default along the ego's way.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shares: dict[str, float],
        wanted: float,
        gap: float,
        forward: int = 1,
        *,
        ego: bool = False,
        stretch: tuple[float, float] | None = None,
    ):
        self.rng = rng
        last, at = stretch or ((-BEHIND, AHEAD) if forward > 0 else (-AHEAD, BEHIND))
        places = []
        while at > last:
            kind = BY_NAME[_choose(rng, shares)]
            length = kind.shape.size[0] * 1.1
            places.append((at - length / 2, length, kind))
            at -= length + 2.5 + rng.exponential(gap)
        if ego:
            places = [p for p in places if abs(p[0]) > (p[1] + EGO_SIZE[0]) / 2 + 4]
            places = sorted([*places, (0.0, EGO_SIZE[0], None)], key=lambda p: -p[0])
        self.start, self.lengths = (np.array([p[i] for p in places]) for i in (0, 1))
        self.kinds = [p[2] for p in places]
        self.wanted = wanted * rng.uniform(0.85, 1.1, len(places))

    def add_to(self, crowd: Crowd, lane: Lane, stops: list[Stop]) -> None:
        """Lets the fleet drive and adds it, the ego first."""
        line = lane.line

        def limit(at: np.ndarray) -> np.ndarray:
            return bend_speed(np.interp(lane.forward * at, line.distances, line.curvature))

        travelled = drive(
            self.start,
            self.lengths,
            self.wanted,
            crowd.times,
            limit=lambda at: bend_speed(
                np.interp(lane.forward * at, line.distances, line.curvature)
            ),
            stops=stops,
        )
        if None in self.kinds:
            rear_axle = travelled[:, self.kinds.index(None)] - EGO_MIDDLE
            crowd.set_ego(Track(crowd.times, lane.poses(rear_axle)))
        for kind, at in zip(self.kinds, travelled.T, strict=True):
            if kind is not None:
                track = Track(crowd.times, lane.poses(at))
                crowd.try_to_add(make_actor(self.rng, kind, track, driven=True))


class _Crossers:
    """Pedestrians who walk over the crosswalk together."""

    def __init__(self, rng: np.random.Generator, roadway: Roadway, times: np.ndarray):
        self.rng, self.roadway, self.times = rng, roadway, times
        self.start, self.speed = rng.uniform(-6, times[-1] - 3), rng.uniform(1.2, 1.7)
        self.side, self.count = int(rng.choice([-1, 1])), int(rng.integers(1, 5))

    def stops(self, forward: int) -> list[Stop]:
        """Returns the stop of a direction while they walk between the kerb and the far lane."""
        if self.roadway.crosswalk is None:
            return []
        reach = self.roadway.pavement + 1
        first = self.start + (reach - self.roadway.kerb) / self.speed
        last = self.start + (reach + self.roadway.edge + 0.5 * self.count) / self.speed
        return [self.roadway.crosswalk_stop(forward, first, last)]

    def add_to(self, crowd: Crowd) -> None:
        """Adds them to the crowd."""
        if self.roadway.crosswalk is None:
            return
        reach = self.roadway.pavement + 1
        for number in range(self.count):
            walked = np.maximum(self.times - self.start, 0) * self.speed
            left = self.side * np.minimum(walked - reach - 0.6 * number, reach)
            along = self.roadway.crosswalk + self.rng.uniform(-1, 1)
            poses = self.roadway.line.poses(np.full(len(left), along), left)
            poses[:, 2] += self.side * np.pi / 2
            actor = make_actor(
                self.rng, BY_NAME['pedestrian'], Track(self.times, poses), driven=True
            )
            crowd.try_to_add(actor)


def _stretch(crowd: Crowd, roadway: Roadway) -> tuple[float, float]:
    """Returns the stretch of the road along which the ego passes, with some distance around."""
    line = roadway.line
    ego = crowd.ego.poses(crowd.times)[[0, -1], :2]
    points = line.poses(line.distances)[:, :2]
    ends = line.distances[np.hypot(*(points[:, None] - ego).transpose(2, 0, 1)).argmin(0)]
    return float(ends.min() - REACH), float(ends.max() + REACH)


def _still(roadway: Roadway, at: float, left: float, yaw: float = 0.0) -> Track:
    """Returns the track of what stands at a place of the road, turned by ``yaw`` from along it."""
    x, y, along = roadway.line.poses(np.array([at]), left)[0]
    return Track.still(x, y, along + yaw)


def add_parked(rng: np.random.Generator, crowd: Crowd, roadway: Roadway) -> None:
    """Adds vehicles on the parking strips, and zones of road works in place of some."""
    start, end = _stretch(crowd, roadway)
    for side in (-1, 1):
        at = start + rng.uniform(0, 5)
        while at < end:
            what = _choose(rng, PARKED)
            length, placed = _parked_group(rng, what, side, roadway)
            if roadway.free(at + length / 2, length / 2):
                for name, along, left, yaw in placed:
                    track = _still(roadway, at + along, left, yaw)
                    crowd.try_to_add(make_actor(rng, BY_NAME[name], track))
            at += length + rng.uniform(0.6, 2)


# Class, distance from the start of the group, offset to the left, yaw from along the road.
Placed = list[tuple[str, float, float, float]]


def _parked_group(
    rng: np.random.Generator, what: str, side: int, roadway: Roadway
) -> tuple[float, Placed]:
    """Returns the length of a group on a parking strip, and its members."""
    left = side * (roadway.kerb + roadway.edge) / 2
    yaw = 0.0 if side < 0 else np.pi
    if what == 'nothing':
        return float(rng.uniform(3, 9)), []
    if what == 'work':
        return _work_zone(rng, side, roadway)
    if what == 'cycles':
        count = int(rng.integers(2, 6))
        names = rng.permutation(['bicycle', 'motorcycle'] * 3)[:count]
        turn = yaw - side * np.pi / 2
        return count * 1.2, [
            (str(name), 0.6 + 1.2 * i, left + side * 0.4, turn + rng.normal(0, 0.06))
            for i, name in enumerate(names)
        ]
    names = [what]
    if what == 'lorries':
        names = rng.permutation(['truck', 'construction_vehicle'])[: rng.integers(1, 3)]
    placed, at = [], 0.0
    for name in map(str, names):
        length = BY_NAME[name].shape.size[0] * 1.1
        placed.append((name, at + length / 2, left, yaw + rng.normal(0, 0.02)))
        at += length + 0.8
    return at - 0.8, placed


def _work_zone(rng: np.random.Generator, side: int, roadway: Roadway) -> tuple[float, Placed]:
    """Returns the length of a work zone, and its barriers, cones and vehicle."""
    yaw = 0.0 if side < 0 else np.pi
    count = int(rng.integers(3, 6))
    length = 2.8 * count
    edge, middle = side * (roadway.edge + 0.35), side * (roadway.edge + roadway.kerb) / 2
    placed = [
        ('barrier', 2.8 * (i + 0.5), edge, np.pi / 2 + rng.normal(0, 0.04)) for i in range(count)
    ]
    for end in (-0.7, length + 0.7):
        placed += [('traffic_cone', end, edge + side * left, 0.0) for left in (0.0, 1.2, 2.4)]
    name = ('construction_vehicle', 'traffic_cone', 'pedestrian')[rng.integers(3)]
    placed.append((name, length / 2, middle + side * 0.35, yaw))
    return length + 1.4, [(name, at + 0.7, left, yaw) for name, at, left, yaw in placed]


def add_pedestrians(rng: np.random.Generator, crowd: Crowd, roadway: Roadway) -> None:
    """Adds groups of pedestrians on the pavements, who walk along or stand."""
    start, end = _stretch(crowd, roadway)
    gap = rng.uniform(10, 35)
    for side in (-1, 1):
        at = start + rng.exponential(gap)
        while at < end:
            _add_group(rng, crowd, roadway, at, side)
            at += 2 + rng.exponential(gap)


def _add_group(
    rng: np.random.Generator, crowd: Crowd, roadway: Roadway, at: float, side: int
) -> None:
    speed = rng.uniform(0.8, 1.7) * rng.choice([-1, 1]) if rng.random() < 0.7 else 0.0
    for number in range(rng.choice([1, 2, 3, 7], p=[0.5, 0.25, 0.15, 0.1])):
        along = at + 0.9 * (number // 3) + rng.uniform(-0.05, 0.05)
        left = side * (roadway.pavement + 0.9 + 0.8 * (number % 3))
        if speed:
            moved = along + speed * (crowd.times - crowd.times.mean())
            poses = roadway.line.poses(moved, left)
            poses[:, 2] += 0.0 if speed > 0 else np.pi
            track = Track(crowd.times, poses)
        else:
            track = _still(roadway, along, left, rng.uniform(-np.pi, np.pi))
        crowd.try_to_add(make_actor(rng, BY_NAME['pedestrian'], track, driven=True))


def add_ignored(rng: np.random.Generator, crowd: Crowd, roadway: Roadway, count: int) -> None:
    """Adds objects of the ignored classes in turn, on pavements and plots."""
    start, end = _stretch(crowd, roadway)
    for number in range(count):
        kind = IGNORED_CLASSES[number % len(IGNORED_CLASSES)]
        for _ in range(50):
            left = rng.choice([-1, 1]) * rng.uniform(roadway.pavement + 1, roadway.front + 2)
            track = _still(roadway, rng.uniform(start, end), left, rng.uniform(-np.pi, np.pi))
            if crowd.try_to_add(make_actor(rng, kind, track)):
                break


def add_scenery(rng: np.random.Generator, crowd: Crowd, roadway: Roadway) -> None:
    """Adds plots with houses, walls, posters and bushes, and a row of things along the kerb."""
    start, end = _stretch(crowd, roadway)
    for side in (-1, 1):
        for at, name in _row(rng, start, end, PLOTS):
            kind = PROPS[name]
            depth = kind.shape.size[1] * 1.1
            left = side * (roadway.front + rng.uniform(0.2, 3.0) + depth / 2)
            _add_prop(rng, crowd, roadway, kind, at, left, roadway.front)
        for at, name in _row(rng, start, end, KERB_ROW, spacing=5.0):
            left = side * (roadway.pavement + 0.3)
            _add_prop(rng, crowd, roadway, PROPS[name], at, left, roadway.kerb)


def _row(
    rng: np.random.Generator,
    start: float,
    end: float,
    shares: dict[str, float],
    spacing: float = 0.0,
) -> Iterator[tuple[float, str]]:
    """Yields distances along the road and names of props, one beside the other."""
    at = start
    while at < end:
        name = _choose(rng, shares)
        length = spacing or PROPS[name].shape.size[0] * 1.1
        yield at + length / 2, name
        at += length + rng.uniform(0.5, 4)


def _add_prop(
    rng: np.random.Generator,
    crowd: Crowd,
    roadway: Roadway,
    kind,
    at: float,
    left: float,
    nearest: float,
) -> None:
    """Adds a piece of scenery unless it stands closer than ``nearest`` to the road elsewhere."""
    track = _still(roadway, at, left, 0.0 if left < 0 else np.pi)
    actor = make_actor(rng, kind, track)
    footprint = np.array([0.4, 0.4]) if kind is scenery.TREE else actor.size[:2]
    x, y, yaw = track.samples[0]
    grid = np.stack(np.meshgrid([-0.5, 0, 0.5], [-0.5, 0, 0.5]), -1).reshape(-1, 2) * footprint
    cos, sin = np.cos(yaw), np.sin(yaw)
    points = np.stack([x + cos * grid[:, 0] - sin * grid[:, 1],
                       y + sin * grid[:, 0] + cos * grid[:, 1]], axis=-1)  # fmt: skip
    if (roadway.line.gap(points) < nearest).any():
        return
    crossing = roadway.crossing
    if crossing is not None and (crossing.line.gap(points) < 7.0).any():
        return
    crowd.try_to_add(actor, footprint=footprint)
