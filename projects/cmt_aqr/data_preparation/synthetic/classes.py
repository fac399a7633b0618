"""Classes of the synthetic world: shapes, motion and looks.

They are the ten classes of the detection task, some that nuScenes annotates and the task ignores,
and scenery, which is not annotated. A :class:`Shape` has all that a LiDAR can see, a :class:`Look`
all that only a camera can see. Front and rear of all that drives or walks differ in both.
"""

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """Cuboid of an object, relative to its solid.

    Attributes:
        low, high: opposite corners; x and y from -0.5 to 0.5 of length and width (x forward, y
            left), z from 0 to 1 of the height.
        role: how the part is painted, see :mod:`.paint`.
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
        parts: cuboids of an object.
        still_parts: cuboids of an object without its rider; None for the same.
    """

    size: Triple
    reflectivity: float
    parts: tuple[Part, ...] = WHOLE
    still_parts: tuple[Part, ...] | None = None


@dataclass(frozen=True)
class Look:
    """Properties of a class that only a camera can see.

    Attributes:
        base, accent: hue, saturation and value, each 0 to 1.
        spread: half widths of the uniform jitter of the base's hue, saturation and value.
        pattern: distribution of the accent, a name in :data:`.paint.PATTERNS`.
        period: period of a repeating pattern, metres.
        lamps: sides with lamps, of ``front`` and ``rear``.
    """

    base: Triple
    accent: Triple
    spread: Triple = (0.02, 0.08, 0.1)
    pattern: str = 'plain'
    period: float = 1.0
    lamps: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObjectClass:
    """Class of objects: official names, shape and look.

    Attributes:
        name: detection name; for an ignored class the last part of its category.
        category: nuScenes category; empty for scenery, which is not annotated.
        moving_attribute, stopped_attribute, parked_attribute: nuScenes attributes of an object in
            motion, of one that has a driver and stands, and of one without; empty if the class has
            none.
    """

    name: str
    category: str
    shape: Shape
    look: Look
    moving_attribute: str = ''
    stopped_attribute: str = ''
    parked_attribute: str = ''


_CAR = Shape(
    size=(4.6, 1.95, 1.75),
    reflectivity=60.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.5, 0.5, 0.55)),
        Part((-0.46, -0.45, 0.55), (0.16, 0.45, 1.0), role='cabin'),
    ),
)
_LORRY = Shape(
    size=(6.7, 2.6, 3.0),
    reflectivity=80.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.22, 0.5, 1.0)),
        Part((0.22, -0.45, 0.0), (0.5, 0.45, 0.72), role='cab'),
    ),
)
_COACH = Shape(
    size=(11.0, 2.9, 3.5),
    reflectivity=100.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.42, 0.5, 1.0)),
        Part((0.42, -0.5, 0.0), (0.5, 0.5, 0.8), role='cab'),
    ),
)
_TRAILER = Shape(
    size=(10.0, 2.8, 3.6),
    reflectivity=100.0,
    parts=(
        Part((-0.5, -0.5, 0.3), (0.4, 0.5, 1.0)),
        Part((-0.46, -0.46, 0.0), (-0.2, 0.46, 0.3), role='dark'),
        Part((0.2, -0.3, 0.0), (0.24, 0.3, 0.3), role='dark'),
        Part((0.4, -0.12, 0.16), (0.5, 0.12, 0.3), role='dark'),
    ),
)
_CYCLE = Shape(
    size=(1.95, 0.75, 1.5),
    reflectivity=40.0,
    parts=(
        Part((-0.5, -0.25, 0.0), (0.5, 0.25, 0.55)),
        Part((-0.35, -0.4, 0.35), (0.1, 0.4, 1.0), role='rider'),
        Part((0.22, -0.5, 0.55), (0.34, 0.5, 0.68), role='dark'),
    ),
    still_parts=(
        Part((-0.5, -0.25, 0.0), (0.5, 0.25, 0.6)),
        Part((0.22, -0.5, 0.6), (0.34, 0.5, 1.0), role='dark'),
    ),
)
_PEDESTRIAN = Shape(
    size=(0.75, 0.7, 1.77),
    reflectivity=30.0,
    parts=(
        Part((-0.2, -0.5, 0.0), (0.35, 0.5, 0.84)),
        Part((-0.15, -0.2, 0.84), (0.3, 0.2, 1.0), role='head'),
        Part((-0.5, -0.35, 0.5), (-0.2, 0.35, 0.82), role='dark'),
        Part((0.35, -0.35, 0.0), (0.5, 0.35, 0.08), role='dark'),
    ),
)
_BARRIER = Shape(size=(0.5, 2.5, 1.0), reflectivity=70.0)
_CONE = Shape(
    size=(0.45, 0.45, 1.05),
    reflectivity=120.0,
    parts=(
        Part((-0.5, -0.5, 0.0), (0.5, 0.5, 0.35)),
        Part((-0.35, -0.35, 0.35), (0.35, 0.35, 1.0)),
    ),
)

_VEHICLE = dict(
    moving_attribute='vehicle.moving',
    stopped_attribute='vehicle.stopped',
    parked_attribute='vehicle.parked',
)
_RIDDEN = dict(
    moving_attribute='cycle.with_rider',
    stopped_attribute='cycle.with_rider',
    parked_attribute='cycle.without_rider',
)
_WHITE = (0.0, 0.0, 0.92)
_BLACK = (0.0, 0.0, 0.12)
_BOTH_LAMPS = ('front', 'rear')

CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass(
        'car',
        'vehicle.car',
        _CAR,
        Look((0.5, 0.45, 0.6), _BLACK, (0.5, 0.4, 0.35), lamps=_BOTH_LAMPS),
        **_VEHICLE,
    ),
    ObjectClass(
        'truck',
        'vehicle.truck',
        _LORRY,
        Look((0.99, 0.8, 0.72), _WHITE, (0.05, 0.15, 0.15), 'band', lamps=_BOTH_LAMPS),
        **_VEHICLE,
    ),
    ObjectClass(
        'construction_vehicle',
        'vehicle.construction',
        _LORRY,
        Look((0.145, 0.95, 0.9), _BLACK, (0.02, 0.05, 0.1), 'diagonal', 1.2, _BOTH_LAMPS),
        **_VEHICLE,
    ),
    ObjectClass(
        'bus',
        'vehicle.bus.rigid',
        _COACH,
        Look((0.36, 0.75, 0.6), _BLACK, (0.08, 0.15, 0.15), 'band', lamps=_BOTH_LAMPS),
        **_VEHICLE,
    ),
    ObjectClass(
        'trailer',
        'vehicle.trailer',
        _TRAILER,
        Look((0.08, 0.08, 0.9), (0.08, 0.08, 0.65), (0.08, 0.06, 0.1), 'vertical', 0.9, ('rear',)),
        **_VEHICLE,
    ),
    ObjectClass(
        'barrier',
        'movable_object.barrier',
        _BARRIER,
        Look((0.0, 0.90, 0.85), _WHITE, pattern='vertical', period=0.5),
    ),
    ObjectClass(
        'motorcycle',
        'vehicle.motorcycle',
        _CYCLE,
        Look((0.86, 0.85, 0.75), _BLACK, (0.08, 0.15, 0.2), lamps=_BOTH_LAMPS),
        **_RIDDEN,
    ),
    ObjectClass(
        'bicycle',
        'vehicle.bicycle',
        _CYCLE,
        Look((0.49, 0.85, 0.8), _BLACK, (0.08, 0.15, 0.2), lamps=('rear',)),
        **_RIDDEN,
    ),
    ObjectClass(
        'pedestrian',
        'human.pedestrian.adult',
        _PEDESTRIAN,
        Look((0.5, 0.5, 0.6), (0.66, 0.60, 0.28), (0.5, 0.4, 0.35), 'halves'),
        moving_attribute='pedestrian.moving',
        stopped_attribute='pedestrian.standing',
        parked_attribute='pedestrian.standing',
    ),
    ObjectClass(
        'traffic_cone',
        'movable_object.trafficcone',
        _CONE,
        Look((0.06, 1.0, 1.0), _WHITE, (0.01, 0.05, 0.1), 'horizontal', 0.35),
    ),
)

IGNORED_CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass(
        'animal',
        'animal',
        Shape(size=(1.1, 0.45, 0.8), reflectivity=25.0),
        Look((0.07, 0.60, 0.40), _BLACK),
    ),
    ObjectClass(
        'debris',
        'movable_object.debris',
        Shape(size=(1.3, 0.9, 0.6), reflectivity=50.0),
        Look((0.0, 0.0, 0.35), _BLACK),
    ),
    ObjectClass(
        'bicycle_rack',
        'static_object.bicycle_rack',
        Shape(size=(3.2, 1.6, 1.1), reflectivity=90.0),
        Look((0.0, 0.0, 0.75), _BLACK, pattern='vertical', period=0.6),
    ),
)
"""Annotated classes that are not detected; their label in MMDetection3D's info files is -1."""

LOOK_ALIKES: tuple[tuple[str, str], ...] = (
    ('truck', 'construction_vehicle'),
    ('motorcycle', 'bicycle'),
)
"""Pairs of classes with one shape, which only cameras can tell apart."""

BY_NAME = {kind.name: kind for kind in (*CLASSES, *IGNORED_CLASSES)}
