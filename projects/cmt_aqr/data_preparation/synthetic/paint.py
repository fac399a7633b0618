"""Colours of surfaces: base, accent and light."""

from collections.abc import Callable

import numpy as np

from .world import Actor

# Brightness of a face turned away from the sun, between 0 and 1.
AMBIENT = 0.55
GLASS = np.array([0.16, 0.19, 0.23])
RIDER_SHADE = 0.75

# A pattern maps u (metres along the surface), v (metres up or across it), the relative height (0 to
# 1) and the period in metres to True for the accent colour; all arrays are (N,).
Pattern = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]


def _stripes(position: np.ndarray, period: float) -> np.ndarray:
    return np.floor(2 * position / period) % 2 == 1


PATTERNS: dict[str, Pattern] = {
    'plain': lambda u, v, height, period: np.zeros(len(u), bool),
    'vertical': lambda u, v, height, period: _stripes(u, period),
    'horizontal': lambda u, v, height, period: _stripes(v, period),
    'diagonal': lambda u, v, height, period: _stripes(u + v, period),
    'band': lambda u, v, height, period: (height > 0.5) & (height < 0.75),
    'halves': lambda u, v, height, period: height < 0.45,
}


def surface_colours(
    actor: Actor, part: np.ndarray, axis: np.ndarray, local: np.ndarray
) -> np.ndarray:
    """Returns the colours of points on an object, without light.

    Args:
        actor: the object.
        part: (N,) index of the part of each point.
        axis: (N,) axis of its face in the object's frame.
        local: (N, 3) points; origin on the ground below the object's centre, x forward.

    Returns:
        (N, 3) RGB, 0 to 1.
    """
    look = actor.kind.look
    u = np.where(axis == 0, local[:, 1], local[:, 0])
    v = np.where(axis == 2, local[:, 1], local[:, 2])
    accent = PATTERNS[look.pattern](u, v, local[:, 2] / actor.size[2], look.period)
    colours = np.where(accent[:, None], actor.accent, actor.base)
    roles = np.array([p.role for p in actor.parts])[part]
    colours[roles == 'glass'] = GLASS
    colours[roles == 'rider'] *= RIDER_SHADE
    return colours


def face_light(axis: np.ndarray, sign: np.ndarray, yaw: float, light: np.ndarray) -> np.ndarray:
    """Returns the brightness of faces under ambient and sun light.

    Args:
        axis: (N,) axis of the face in the object's frame.
        sign: (N,) +1 or -1, side of the face along the axis.
        yaw: yaw of the object in the frame of ``light``.
        light: (3,) unit vector towards the sun.

    Returns:
        (N,) factor from ``AMBIENT`` to 1.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = light
    towards = np.array([cos * x + sin * y, cos * y - sin * x, z])
    return AMBIENT + (1 - AMBIENT) * np.maximum(0, sign * towards[axis])
