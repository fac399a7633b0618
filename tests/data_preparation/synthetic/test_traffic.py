"""Vehicles of a lane reach their speed, follow, stop and slow down in bends."""

import numpy as np
import pytest

from projects.cmt_aqr.data_preparation.synthetic.traffic import (
    TIME_STEP,
    Stop,
    bend_speed,
    drive,
)

TIMES = np.arange(0, 60, TIME_STEP)


def run(start, wanted, *, limit=lambda at: np.full(len(at), np.inf), stops=()):
    """Distances (T, N) of vehicles of 5 m, and their speeds."""
    start = np.array(start, float)
    track = drive(start, np.full(len(start), 5.0), np.array(wanted, float), TIMES, limit=limit,
                  stops=stops)  # fmt: skip
    return track, np.diff(track, axis=0) / TIME_STEP


def test_a_lone_vehicle_keeps_the_speed_it_wants():
    _, speed = run([0], [10])
    assert speed[-1, 0] == pytest.approx(10, abs=0.1)


def test_a_faster_vehicle_falls_in_behind_a_slower_one():
    track, speed = run([40, 0], [5, 12])
    gap = track[:, 0] - track[:, 1] - 5
    assert gap.min() > 2
    assert speed[-1, 1] == pytest.approx(5, abs=0.1)
    assert 2 + 1.2 * 5 < gap[-1] < 15


def test_it_stops_before_the_line_and_drives_on_when_the_line_is_free():
    track, speed = run([0, -12], [8, 8], stops=[Stop(40.0, 0.0, 30.0)])
    waiting = int(29 / TIME_STEP)
    assert speed[waiting] == pytest.approx([0, 0], abs=0.05)
    assert 35 < track[waiting, 0] + 2.5 < 40
    assert (track[-1] > 60).all()
    assert speed.min() >= 0


def test_who_cannot_stop_any_more_passes_the_line():
    track, _ = run([30], [10], stops=[Stop(34.0, 0.0, 30.0)])
    assert track[50, 0] > 60


def test_bends_limit_the_speed():
    _, speed = run([0], [12], limit=lambda at: np.where(at > 60, bend_speed(1 / 20), np.inf))
    assert speed[-1, 0] == pytest.approx(np.sqrt(2.0 * 20), abs=0.1)
    assert bend_speed(np.array([1 / 20])) == pytest.approx(np.sqrt(40))
