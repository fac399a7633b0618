"""The road of a scene: lanes, parking strips, pavements, a crossing and a crosswalk.

From the middle of the road outwards, on either side: lanes, a parking strip up to the kerb, a cycle
lane, a pavement up to the front of the plots. Metres throughout.
"""

from dataclasses import dataclass

import numpy as np

from .road import CentreLine, Lane, bending_line, straight_line
from .traffic import Stop

LANE_WIDTH = 3.5
PARKING_WIDTH = 3.3
CYCLE_WIDTH = 1.6
PAVEMENT_WIDTH = 3.0
# Length of the road before and behind the start of the ego, and of the street that crosses it.
ROAD_LENGTH, CROSSING_LENGTH = 260.0, 60.0
CROSSING_SHARE, CROSSWALK_SHARE = 0.5, 0.6
# Distance of stop lines from the middle of a crossing or crosswalk.
STOP_DISTANCE, CROSSWALK_DISTANCE = 7.0, 3.0


@dataclass(frozen=True)
class Crossing:
    """Street that crosses the road, and the time in which it has the right of way.

    Attributes:
        at: distance of the crossing along the road.
        line: centre line of the street, with the crossing at distance 0.
        start, end: seconds between which vehicles on the road give way.
    """

    at: float
    line: CentreLine
    start: float
    end: float


@dataclass(frozen=True)
class Roadway:
    """Road along which the ego vehicle drives.

    Attributes:
        line: centre line; the ego starts near distance 0.
        lanes: lanes in each direction.
        crossing: street that crosses the road, if any.
        crosswalk: distance of a crosswalk along the road, if any.
    """

    line: CentreLine
    lanes: int
    crossing: Crossing | None
    crosswalk: float | None
    lane_width: float = LANE_WIDTH

    @property
    def edge(self) -> float:
        """Offset of the edge of the outermost lane."""
        return self.lanes * self.lane_width

    @property
    def kerb(self) -> float:
        """Offset of the kerb, behind the parking strip."""
        return self.edge + PARKING_WIDTH

    @property
    def pavement(self) -> float:
        """Offset at which the pavement begins, behind the cycle lane."""
        return self.kerb + CYCLE_WIDTH

    @property
    def front(self) -> float:
        """Offset of the front of the plots."""
        return self.pavement + PAVEMENT_WIDTH

    def lane(self, forward: int, number: int) -> Lane:
        """Returns a lane; number 0 is next to the middle of the road."""
        return Lane(self.line, forward, -forward * (number + 0.5) * self.lane_width)

    def cycle_lane(self, forward: int) -> Lane:
        """Returns the cycle lane of a direction."""
        return Lane(self.line, forward, -forward * (self.kerb + CYCLE_WIDTH / 2))

    def stops(self, forward: int) -> list[Stop]:
        """Returns the line before the crossing, at which the road gives way."""
        if self.crossing is None:
            return []
        at = forward * self.crossing.at - STOP_DISTANCE
        return [Stop(at, self.crossing.start, self.crossing.end)]

    def crosswalk_stop(self, forward: int, start: float, end: float) -> Stop:
        """Returns the line before the crosswalk while somebody walks on it."""
        return Stop(forward * self.crosswalk - CROSSWALK_DISTANCE, start, end)

    def free(self, at: float, reach: float) -> bool:
        """Whether a stretch of the roadside keeps clear of crossing and crosswalk."""
        crossing = self.crossing is None or abs(at - self.crossing.at) > STOP_DISTANCE + 4 + reach
        crosswalk = self.crosswalk is None or abs(at - self.crosswalk) > 3.0 + reach
        return crossing and crosswalk


def sample_roadway(rng: np.random.Generator, pose: np.ndarray, duration: float) -> Roadway:
    """Samples the road of a scene of some seconds; ``pose`` (3,) is at distance 0."""
    line = bending_line(rng, pose, ROAD_LENGTH)
    lanes = int(rng.choice([1, 2], p=[0.65, 0.35]))
    crosswalk = float(rng.uniform(12, 60)) if rng.random() < CROSSWALK_SHARE else None
    at, start, length = rng.uniform(20, 70), rng.uniform(-2, duration), rng.uniform(6, 9)
    wanted = rng.random() < CROSSING_SHARE
    street = line.poses(np.array([at]))[0] + [0, 0, np.pi / 2]
    crossing = Crossing(float(at), straight_line(street, CROSSING_LENGTH), start, start + length)
    if not wanted or not _meets_once(line, crossing):
        crossing = None
    elif crosswalk is not None and abs(crosswalk - at) < 20:
        crosswalk = None
    return Roadway(line, lanes, crossing, crosswalk)


def _meets_once(line: CentreLine, crossing: Crossing) -> bool:
    """Whether a street leaves the road for good on both sides of the crossing."""
    distances = crossing.line.distances
    far = distances[np.abs(distances) > 30]
    return bool((line.gap(crossing.line.poses(far)[:, :2]) > 20).all())
