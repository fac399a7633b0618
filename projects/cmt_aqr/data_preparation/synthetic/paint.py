"""Colours of surfaces: base, accent, glass, lamps and light."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .classes import Look

# Brightness of a face turned away from the sun, between 0 and 1.
AMBIENT = 0.55
GLASS = np.array([0.16, 0.19, 0.23])
WINDSCREEN = np.array([0.50, 0.60, 0.66])
DARK = np.array([0.10, 0.10, 0.11])
SKIN = np.array([0.72, 0.55, 0.44])
HEADLAMP = np.array([1.0, 0.97, 0.85])
TAIL_LAMP = np.array([0.88, 0.05, 0.05])
RIDER_SHADE = 0.6
# Height of lamps above the ground, metres, and their distance from the middle, of the width.
LAMP_HEIGHT = (0.45, 0.85)
LAMP_SIDE = 0.26

# A pattern maps u (metres along the surface), v (metres up or across it), the relative height (0 to
# 1) and the period in metres to True for the accent colour; all arrays are (N,).
Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]


class Paint(NamedTuple):
    """Surface of N points."""

    colours: np.ndarray
    """(N, 3) RGB, 0 to 1, without light"""
    glow: np.ndarray
    """(N,) bool, points that shine by themselves at night"""


def _stripes(position: np.ndarray, period: float) -> np.ndarray:
    return np.floor(2 * position / period) % 2 == 1


PATTERNS: dict[str, Pattern] = {
    'plain': lambda u, v, height, period: np.zeros(len(u), bool),
    'vertical': lambda u, v, height, period: _stripes(u, period),
    'horizontal': lambda u, v, height, period: _stripes(v, period),
    'diagonal': lambda u, v, height, period: _stripes(u + v, period),
    'band': lambda u, v, height, period: (height > 0.5) & (height < 0.75),
    'halves': lambda u, v, height, period: height < 0.45,
    'windows': lambda u, v, height, period: _stripes(u, period) & _stripes(v, period),
    # The side of a car on a poster, in the accent colour.
    'picture': lambda u, v, height, period: np.where(
        height < 0.5, height > 0.1, (height < 0.9) & (np.abs(u + 0.5) < 1.3)
    ),
}


def paint_surface(
    look: Look,
    *,
    size: np.ndarray,
    base: np.ndarray,
    accent: np.ndarray,
    roles: np.ndarray,
    axis: np.ndarray,
    side: np.ndarray,
    local: np.ndarray,
) -> Paint:
    """Returns the paint of points on an object.

    Args:
        look: look of its class.
        size: (3,) of the object, metres.
        base, accent: (3,) RGB colours of the object.
        roles: (N,) role of the part of each point.
        axis: (N,) axis of its face in the object's frame.
        side: (N,) +1 or -1, side of the face along the axis.
        local: (N, 3) points; origin on the ground below the object's centre, x forward.
    """
    height = local[:, 2] / size[2]
    u = np.where(axis == 0, local[:, 1], local[:, 0])
    v = np.where(axis == 2, local[:, 1], local[:, 2])
    marked = PATTERNS[look.pattern](u, v, height, look.period)
    colours = np.where(marked[:, None], accent, base)
    front, rear = (axis == 0) & (side > 0), (axis == 0) & (side < 0)
    cabin = (roles == 'cabin') & (axis != 2)
    colours[cabin] = GLASS
    colours[(cabin & front) | ((roles == 'cab') & front & (height > 0.42))] = WINDSCREEN
    colours[cabin & rear] = DARK
    colours[roles == 'dark'] = DARK
    colours[roles == 'head'] = SKIN
    colours[(roles == 'head') & rear] = DARK
    colours[roles == 'rider'] *= RIDER_SHADE
    return Paint(colours, _add_lamps(colours, look, front, rear, local, size[1]))


def _add_lamps(
    colours: np.ndarray,
    look: Look,
    front: np.ndarray,
    rear: np.ndarray,
    local: np.ndarray,
    width: float,
) -> np.ndarray:
    """Paints lamps, and a grille between those of the front; returns the points of lamps."""
    glow = np.zeros(len(colours), bool)
    level = (local[:, 2] > LAMP_HEIGHT[0]) & (local[:, 2] < LAMP_HEIGHT[1])
    # What is too narrow for two lamps has one in the middle.
    outside = (np.abs(local[:, 1]) > LAMP_SIDE * width) | (width < 1.0)
    for name, face, colour in (('front', front, HEADLAMP), ('rear', rear, TAIL_LAMP)):
        if name in look.lamps:
            lamps = face & level & outside
            colours[lamps], glow[lamps] = colour, True
            if name == 'front':
                colours[face & level & ~outside] = DARK
    return glow


def face_light(axis: np.ndarray, side: np.ndarray, yaw: float, light: np.ndarray) -> np.ndarray:
    """Returns the brightness of faces under ambient and sun light.

    Args:
        axis: (N,) axis of the face in the object's frame.
        side: (N,) +1 or -1, side of the face along the axis.
        yaw: yaw of the object in the frame of ``light``.
        light: (3,) vector towards the sun, shorter than 1 for a weak sun.

    Returns:
        (N,) factor from ``AMBIENT`` to 1.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = light
    towards = np.array([cos * x + sin * y, cos * y - sin * x, z])
    return AMBIENT + (1 - AMBIENT) * np.maximum(0, side * towards[axis])
