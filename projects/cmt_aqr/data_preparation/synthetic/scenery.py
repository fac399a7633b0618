"""Scenery: what both sensors see and may take for an object, and is none."""

from .classes import Look, ObjectClass, Part, Shape

_WHITE = (0.0, 0.0, 0.9)
_DARK = (0.6, 0.2, 0.25)


def _scenery(name: str, shape: Shape, look: Look) -> ObjectClass:
    return ObjectClass(name, '', shape, look)


HOUSE = _scenery(
    'house',
    Shape(size=(12.0, 8.0, 8.0), reflectivity=45.0),
    Look((0.07, 0.25, 0.65), _DARK, (0.06, 0.2, 0.25), 'windows', 2.6),
)
WALL = _scenery(
    'wall',
    Shape(size=(9.0, 0.3, 1.6), reflectivity=50.0),
    Look((0.07, 0.15, 0.6), _DARK, (0.06, 0.15, 0.2)),
)
POSTER = _scenery(
    'poster',
    Shape(size=(4.8, 0.2, 1.9), reflectivity=60.0),
    Look((0.5, 0.1, 0.8), (0.62, 0.6, 0.6), (0.5, 0.1, 0.15), 'picture'),
)
BUSH = _scenery(
    'bush',
    Shape(
        size=(4.3, 1.8, 1.6),
        reflectivity=45.0,
        parts=(Part((-0.5, -0.5, 0.0), (0.5, 0.5, 0.6)), Part((-0.3, -0.4, 0.6), (0.3, 0.4, 1.0))),
    ),
    Look((0.29, 0.6, 0.35), (0.27, 0.6, 0.25), (0.04, 0.1, 0.1), 'diagonal', 0.3),
)
TREE = _scenery(
    'tree',
    Shape(
        size=(3.2, 3.2, 6.0),
        reflectivity=35.0,
        parts=(
            Part((-0.06, -0.06, 0.0), (0.06, 0.06, 0.45), role='dark'),
            Part((-0.5, -0.5, 0.4), (0.5, 0.5, 0.85)),
            Part((-0.3, -0.3, 0.85), (0.3, 0.3, 1.0)),
        ),
    ),
    Look((0.28, 0.6, 0.4), (0.27, 0.6, 0.3), (0.05, 0.1, 0.1), 'diagonal', 0.6),
)
POLE = _scenery(
    'pole',
    Shape(size=(0.25, 0.25, 5.0), reflectivity=60.0),
    Look((0.6, 0.05, 0.5), _DARK, (0.1, 0.05, 0.15)),
)
BIN = _scenery(
    'bin',
    Shape(size=(0.7, 0.65, 1.4), reflectivity=35.0),
    Look((0.33, 0.5, 0.35), _DARK, (0.1, 0.3, 0.15), 'horizontal', 0.9),
)
POST = _scenery(
    'post',
    Shape(size=(0.35, 0.35, 1.0), reflectivity=90.0),
    Look((0.0, 0.0, 0.55), _WHITE, (0.1, 0.1, 0.2), 'horizontal', 1.2),
)
