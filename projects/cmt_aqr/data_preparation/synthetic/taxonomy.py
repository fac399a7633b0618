"""Classes of the synthetic world, their shapes, motion and looks.

They are the ten classes of the detection task, and some that nuScenes annotates and the task
ignores. A :class:`Shape` has all that a LiDAR can see (size, parts, reflectivity, speed), a
:class:`Look` all that only a camera can see (colours, pattern). Three pairs of classes share one
``Shape``: truck and construction vehicle, bus and trailer, motorcycle and bicycle. Only cameras can
tell the classes of a pair apart.
"""

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """Cuboid of an object, relative to its solid.

    Attributes:
        low, high: opposite corners; x and y from -0.5 to 0.5 of length and width (x forward, y
            left), z from 0 to 1 of the height.
        role: ``body`` and ``rider`` have the colours of the look, ``glass`` is always dark.
    """

    low: Triple
    high: Triple
    role: str = 'body'


WHOLE = (Part((-0.5, -0.5, 0.0), (0.5, 0.5, 1.0)),)


@dataclass(frozen=True)
class Shape:
    """Properties of a class that a LiDAR can see.

    Attributes:
        size: mean length, width and height of the annotated box, metres.
        reflectivity: mean LiDAR intensity, 0 to 255.
        parts: cuboids of a moving object.
        still_parts: cuboids of a standing object; None for the same.
        speeds: lowest and highest speed of a moving object, m/s; None for a class that never moves.
    """

    size: Triple
    reflectivity: float
    parts: tuple[Part, ...] = WHOLE
    still_parts: tuple[Part, ...] | None = None
    speeds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Look:
    """Properties of a class that only a camera can see.

    Attributes:
        base, accent: hue, saturation and value, each 0 to 1.
        hue_spread: half width of the uniform jitter of the base hue.
        pattern: distribution of the accent, a name in :data:`.paint.PATTERNS`.
        period: period of a repeating pattern, metres.
    """

    base: Triple
    accent: Triple
    hue_spread: float
    pattern: str = 'plain'
    period: float = 1.0


@dataclass(frozen=True)
class ObjectClass:
    """Class of objects: official names, shape and look.

    Attributes:
        name: detection name; for an ignored class the last part of its category.
        category: nuScenes category.
        moving_attribute, still_attribute: nuScenes attributes, as mmdet3d's ``NuScenesMetric``
            derives them from a predicted velocity; empty if the class has none.
    """

    name: str
    category: str
    shape: Shape
    look: Look
    moving_attribute: str = ''
    still_attribute: str = ''


_CAR = Shape(
    size=(4.6, 1.95, 1.75),
    reflectivity=60.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.5, 0.5, 0.55)),
        Part((-0.35, -0.45, 0.55), (0.22, 0.45, 1.0), role='glass'),
    ),
    speeds=(1.0, 4.0),
)
_LORRY = Shape(
    size=(6.7, 2.6, 3.0),
    reflectivity=80.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.2, 0.5, 1.0)),
        Part((0.2, -0.45, 0.0), (0.5, 0.45, 0.75)),
    ),
    speeds=(1.0, 4.0),
)
_COACH = Shape(
    size=(11.0, 2.9, 3.6),
    reflectivity=100.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.4, 0.5, 1.0)),
        Part((0.4, -0.5, 0.0), (0.5, 0.5, 0.75)),
    ),
    speeds=(1.0, 4.0),
)
_CYCLE = Shape(
    size=(1.95, 0.75, 1.45),
    reflectivity=40.0,
    parts=(
        Part((-0.5, -0.3, 0.0), (0.5, 0.3, 0.6)),
        Part((-0.25, -0.5, 0.35), (0.15, 0.5, 1.0), role='rider'),
    ),
    still_parts=(
        Part((-0.5, -0.3, 0.0), (0.5, 0.3, 0.7)),
        Part((0.2, -0.5, 0.7), (0.35, 0.5, 1.0)),
    ),
    speeds=(1.0, 4.0),
)
_BARRIER = Shape(size=(0.5, 2.5, 1.0), reflectivity=70.0)
_PEDESTRIAN = Shape(size=(0.75, 0.7, 1.77), reflectivity=30.0, speeds=(0.5, 1.5))
_CONE = Shape(
    size=(0.45, 0.45, 1.05),
    reflectivity=120.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.5, 0.5, 0.35)),
        Part((-0.4, -0.4, 0.35), (0.4, 0.4, 1.0)),
    ),
)

_VEHICLE = dict(moving_attribute='vehicle.moving', still_attribute='vehicle.parked')
_RIDDEN = dict(moving_attribute='cycle.with_rider', still_attribute='cycle.without_rider')
_WHITE = (0.0, 0.0, 0.92)
_BLACK = (0.0, 0.0, 0.12)

CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass('car', 'vehicle.car', _CAR, Look((0.61, 0.80, 0.80), _BLACK, 0.035), **_VEHICLE),
    ObjectClass(
        'truck',
        'vehicle.truck',
        _LORRY,
        Look((0.99, 0.85, 0.72), _WHITE, 0.02, 'band'),
        **_VEHICLE,
    ),
    ObjectClass(
        'construction_vehicle',
        'vehicle.construction',
        _LORRY,
        Look((0.145, 0.95, 0.92), _BLACK, 0.015, 'diagonal', 1.2),
        **_VEHICLE,
    ),
    ObjectClass(
        'bus',
        'vehicle.bus.rigid',
        _COACH,
        Look((0.36, 0.80, 0.58), _BLACK, 0.03, 'band'),
        moving_attribute='vehicle.moving',
        still_attribute='vehicle.stopped',
    ),
    ObjectClass(
        'trailer',
        'vehicle.trailer',
        _COACH,
        Look((0.08, 0.08, 0.95), (0.08, 0.08, 0.70), 0.05, 'vertical', 0.9),
        **_VEHICLE,
    ),
    ObjectClass(
        'barrier',
        'movable_object.barrier',
        _BARRIER,
        Look((0.0, 0.90, 0.85), _WHITE, 0.02, 'vertical', 0.5),
    ),
    ObjectClass(
        'motorcycle',
        'vehicle.motorcycle',
        _CYCLE,
        Look((0.86, 0.90, 0.80), _BLACK, 0.025),
        **_RIDDEN,
    ),
    ObjectClass(
        'bicycle', 'vehicle.bicycle', _CYCLE, Look((0.49, 0.90, 0.85), _BLACK, 0.025), **_RIDDEN
    ),
    ObjectClass(
        'pedestrian',
        'human.pedestrian.adult',
        _PEDESTRIAN,
        Look((0.09, 0.55, 0.80), (0.66, 0.60, 0.28), 0.03, 'halves'),
        moving_attribute='pedestrian.moving',
        still_attribute='pedestrian.standing',
    ),
    ObjectClass(
        'traffic_cone',
        'movable_object.trafficcone',
        _CONE,
        Look((0.06, 1.0, 1.0), _WHITE, 0.01, 'horizontal', 0.35),
    ),
)

IGNORED_CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass(
        'animal',
        'animal',
        Shape(size=(1.1, 0.45, 0.8), reflectivity=25.0, speeds=(0.5, 1.5)),
        Look((0.07, 0.60, 0.40), _BLACK, 0.02),
    ),
    ObjectClass(
        'debris',
        'movable_object.debris',
        Shape(size=(1.3, 0.9, 0.6), reflectivity=50.0),
        Look((0.0, 0.0, 0.35), _BLACK, 0.0),
    ),
    ObjectClass(
        'bicycle_rack',
        'static_object.bicycle_rack',
        Shape(size=(3.2, 1.6, 1.1), reflectivity=90.0),
        Look((0.0, 0.0, 0.75), _BLACK, 0.0, 'vertical', 0.6),
    ),
)
"""Annotated classes that are not detected; their label in MMDetection3D's info files is -1."""

LOOK_ALIKES: tuple[tuple[str, str], ...] = (
    ('truck', 'construction_vehicle'),
    ('bus', 'trailer'),
    ('motorcycle', 'bicycle'),
)
