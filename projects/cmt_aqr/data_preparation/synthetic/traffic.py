"""Traffic along a lane by the intelligent driver model (Treiber, Hennecke and Helbing, 2000)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Interval of the simulation, seconds.
TIME_STEP = 0.1
# Acceleration, comfortable deceleration and the hardest one, m/s^2.
ACCELERATION, BRAKING, HARDEST = 1.6, 2.2, 6.0
# Gap behind a standing vehicle, metres, and time gap behind a moving one, seconds.
STANDSTILL_GAP, TIME_GAP = 2.0, 1.2
# Lateral acceleration that limits the speed in bends, m/s^2.
LATERAL = 2.0


@dataclass(frozen=True)
class Stop:
    """Line that vehicles do not cross for some time.

    Attributes:
        at: distance along the lane in the direction of travel, metres.
        start, end: seconds.
    """

    at: float
    start: float
    end: float


def bend_speed(curvature: np.ndarray) -> np.ndarray:
    """(...) highest speed in bends of the curvatures (...), m/s."""
    return np.sqrt(LATERAL / np.maximum(np.abs(curvature), 1e-3))


def drive(
    start: np.ndarray,
    lengths: np.ndarray,
    wanted: np.ndarray,
    times: np.ndarray,
    *,
    limit: Callable[[np.ndarray], np.ndarray],
    stops: Sequence[Stop] = (),
) -> np.ndarray:
    """Simulates the vehicles of a lane.

    Args:
        start: (N,) distances of the centres along the lane at the first time, foremost first.
        lengths: (N,) lengths of the vehicles, metres.
        wanted: (N,) speeds without any hindrance, m/s.
        times: (T,) seconds, ``TIME_STEP`` apart.
        limit: highest speeds at distances along the lane.
        stops: lines to stop at.

    Returns:
        (T, N) distances of the centres along the lane.
    """
    at, speed = start.astype(float), np.minimum(wanted, limit(start))
    speed = np.minimum(speed, _safe_speed(at, lengths))
    track = np.empty((len(times), len(start)))
    for i, time in enumerate(times):
        track[i] = at
        gap, approach = _gap_ahead(at, speed, lengths, stops, time)
        desired = (
            STANDSTILL_GAP
            + speed * TIME_GAP
            + speed * approach / (2 * np.sqrt(ACCELERATION * BRAKING))
        )
        free = (speed / np.minimum(wanted, limit(at + speed))) ** 4
        pull = 1 - free - (np.maximum(desired, STANDSTILL_GAP) / np.maximum(gap, 0.1)) ** 2
        change = np.clip(ACCELERATION * pull, -HARDEST, ACCELERATION)
        faster = np.maximum(speed + change * TIME_STEP, 0.0)
        at = at + (speed + faster) / 2 * TIME_STEP
        speed = faster
    return track


def _safe_speed(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(N,) speeds from which a vehicle keeps its time gap to the one ahead."""
    gap = np.full(len(at), np.inf)
    gap[1:] = at[:-1] - at[1:] - (lengths[:-1] + lengths[1:]) / 2
    return np.maximum(gap - STANDSTILL_GAP, 0.0) / TIME_GAP


def _gap_ahead(
    at: np.ndarray, speed: np.ndarray, lengths: np.ndarray, stops: Sequence[Stop], time: float
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) gaps to the vehicle or line ahead, metres, and the speeds of approach, m/s."""
    gap, approach = np.full(len(at), np.inf), np.zeros(len(at))
    gap[1:] = at[:-1] - at[1:] - (lengths[:-1] + lengths[1:]) / 2
    approach[1:] = speed[1:] - speed[:-1]
    for stop in stops:
        if stop.start <= time < stop.end:
            room = stop.at - at - lengths / 2
            held = (room > 0) & (room < gap) & (speed**2 < 2 * HARDEST * 0.7 * room)
            gap = np.where(held, room + STANDSTILL_GAP - 0.5, gap)
            approach = np.where(held, speed, approach)
    return gap, approach
