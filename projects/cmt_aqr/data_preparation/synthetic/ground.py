"""The ground of a street, seen from above: verge, pavements, asphalt and lane markings."""

from dataclasses import dataclass

import cv2
import numpy as np

from .road import CentreLine
from .roadway import Crossing, Roadway

# Metres per cell, and margin around the path of the ego, metres.
CELL = 0.2
MARGIN = 70.0
# Length and gap of dashes, and width of markings and of the stripes of a crosswalk, metres.
DASH, DASH_GAP, MARKING, STRIPE = 3.0, 5.0, 0.2, 0.5
WHITE, YELLOW = (0.85, 0.85, 0.82), (0.80, 0.66, 0.25)


@dataclass(frozen=True)
class Ground:
    """Colours of the ground.

    Attributes:
        corner: (2,) global x and y of the first cell, metres.
        colours: (rows, columns, 3) float32 RGB, 0 to 1; rows along y, columns along x.
    """

    corner: np.ndarray
    colours: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) float32 colours at global points (N, 2), metres."""
        cells = ((points - self.corner) / CELL).clip(0, np.array(self.colours.shape[1::-1]) - 1)
        column, row = cells.astype(np.int32).T
        return self.colours[row, column]


class _Canvas:
    """Colours on which strips along a centre line are painted."""

    def __init__(self, low: np.ndarray, high: np.ndarray, colour: np.ndarray):
        columns, rows = np.ceil((high - low) / CELL).astype(int)
        self.low = low
        self.colours = np.full((rows, columns, 3), colour, np.float32)

    def strip(
        self, line: CentreLine, along: tuple[float, float], left: tuple[float, float], colour
    ) -> None:
        """Paints what is between two distances along a line and two offsets to its left."""
        start, end = np.clip(along, line.distances[0], line.distances[-1])
        at = np.append(np.arange(start, end, 1.0), end)
        edges = [line.poses(at, left[0]), line.poses(at[::-1], left[1])]
        outline = (np.concatenate(edges)[:, :2] - self.low) / CELL
        # Fixed-point coordinates with four fractional bits.
        cv2.fillPoly(self.colours, [(outline * 16).round().astype(np.int32)], colour, shift=4)


def paint_ground(
    rng: np.random.Generator, roadway: Roadway, path: np.ndarray, *, wet: bool
) -> Ground:
    """Paints the ground around the path (N, 2) of the ego vehicle, metres."""
    verge = np.array([[0.36, 0.42, 0.28], [0.46, 0.44, 0.40]])[rng.integers(2)]
    asphalt = rng.uniform(0.30, 0.40) * rng.uniform(0.96, 1.04, size=3)
    pavement = rng.uniform(0.48, 0.58) * rng.uniform(0.96, 1.04, size=3)
    canvas = _Canvas(path.min(0) - MARGIN, path.max(0) + MARGIN, verge)
    line, everywhere = roadway.line, (-np.inf, np.inf)
    canvas.strip(line, everywhere, (-roadway.front, roadway.front), pavement.tolist())
    crossing = roadway.crossing
    if crossing is not None:
        canvas.strip(crossing.line, everywhere, (-7.0, 7.0), pavement.tolist())
    canvas.strip(line, everywhere, (-roadway.kerb, roadway.kerb), asphalt.tolist())
    _mark_lanes(canvas, roadway)
    if crossing is not None:
        _paint_crossing(canvas, roadway, crossing, asphalt.tolist())
    if roadway.crosswalk is not None:
        _mark_crosswalk(canvas, roadway, roadway.crosswalk)
    return Ground(canvas.low, canvas.colours * np.float32(0.65 if wet else 1.0))


def _mark_lanes(canvas: _Canvas, roadway: Roadway) -> None:
    line, half = roadway.line, MARKING / 2
    canvas.strip(line, (-np.inf, np.inf), (-half, half), YELLOW)
    for edge in (-roadway.edge, roadway.edge):
        canvas.strip(line, (-np.inf, np.inf), (edge - half, edge + half), WHITE)
    for left in (
        k * roadway.lane_width * side for k in range(1, roadway.lanes) for side in (-1, 1)
    ):
        for at in np.arange(line.distances[0], line.distances[-1] - DASH, DASH + DASH_GAP):
            canvas.strip(line, (at, at + DASH), (left - half, left + half), WHITE)


def _paint_crossing(canvas: _Canvas, roadway: Roadway, crossing: Crossing, asphalt) -> None:
    half = roadway.lane_width
    canvas.strip(crossing.line, (-np.inf, np.inf), (-half, half), asphalt)
    for reach in ((-np.inf, -roadway.kerb), (roadway.kerb, np.inf)):
        canvas.strip(crossing.line, reach, (-MARKING / 2, MARKING / 2), YELLOW)
    for side in (-1, 1):
        near, far = sorted((side * (half + 1.5), side * (half + 2.0)))
        at = crossing.at
        canvas.strip(roadway.line, (at + near, at + far), (-roadway.edge, roadway.edge), WHITE)


def _mark_crosswalk(canvas: _Canvas, roadway: Roadway, at: float) -> None:
    for left in np.arange(-roadway.kerb + STRIPE, roadway.kerb - STRIPE, 2 * STRIPE):
        canvas.strip(roadway.line, (at - 1.5, at + 1.5), (left, left + STRIPE), WHITE)
