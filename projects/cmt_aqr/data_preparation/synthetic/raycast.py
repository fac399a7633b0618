"""Ray casting on upright boxes, for the LiDAR and the cameras.

Frame: any right-handed frame with z up, metres. Boxes are rotated about z only, so casting needs no
matrix products, and its result does not depend on the linear algebra library.
"""

from dataclasses import dataclass

import numpy as np

_PARALLEL = np.float32(1e-9)


@dataclass(frozen=True)
class Box:
    """Upright box.

    Attributes:
        centre: (3,) centre in metres.
        size: (3,) length (x), width (y) and height (z) in metres.
        yaw: rotation about z in radians; at 0 the length lies along x.
    """

    centre: np.ndarray
    size: np.ndarray
    yaw: float

    def corners(self) -> np.ndarray:
        """(8, 3) corners; number ``4 i + 2 j + k`` is on the high side of x, y, z for 1."""
        local = CORNER_SIGNS * self.size / 2
        return rotate_z(local, self.yaw) + self.centre


CORNER_SIGNS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)
EDGES = np.array([[a, b] for a in range(8) for b in (a | 1, a | 2, a | 4) if b != a])


@dataclass(frozen=True)
class Hits:
    """First hits of rays on a box.

    Attributes:
        depth: (...) ray parameter of the hit, relative to the direction's length; inf for a miss.
        axis: (...) axis of the face in the frame of the box (0 front or back, 1 sides, 2 top or
            bottom); arbitrary for a miss.
    """

    depth: np.ndarray
    axis: np.ndarray


def rotate_z(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """Rotates vectors (..., 3) about z by ``yaw`` radians, and keeps their type."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, vectors[..., 2]], axis=-1).astype(
        vectors.dtype
    )


def cast(origin: np.ndarray, directions: np.ndarray, box: Box) -> Hits:
    """Returns the first hits of rays on a box, by the slab method (Kay and Kajiya, 1986).

    Args:
        origin: (3,) common origin of the rays, outside of the box.
        directions: (..., 3) directions of any length.
        box: box in the same frame.

    Returns:
        Hits of the shape of ``directions`` without its last axis.
    """
    start = rotate_z(np.asarray(origin, float) - box.centre, -box.yaw).astype(np.float32)
    cos, sin = np.float32(np.cos(box.yaw)), np.float32(np.sin(box.yaw))
    x, y, z = (directions[..., i].astype(np.float32, copy=False) for i in range(3))
    half = (np.asarray(box.size) / 2).astype(np.float32)
    enter = np.full(x.shape, -np.inf, np.float32)
    leave = np.full(x.shape, np.inf, np.float32)
    axis = np.zeros(x.shape, np.int8)
    for i, ray in enumerate((cos * x + sin * y, cos * y - sin * x, z)):
        inverse = 1 / np.where(np.abs(ray) < _PARALLEL, _PARALLEL, ray)
        middle, reach = -start[i] * inverse, half[i] * np.abs(inverse)
        near = middle - reach
        axis[near > enter] = i
        np.maximum(enter, near, out=enter)
        np.minimum(leave, middle + reach, out=leave)
    missed = (enter >= leave) | (enter <= 0)
    enter[missed] = np.inf
    return Hits(enter, axis)
