"""Laps, turns and medians; no test asks how long anything takes."""

import time

import pytest
import torch

from benchmarks.timing import Spread, Stopwatch, alternate, summarize


@pytest.fixture
def clock(monkeypatch):
    """The times that the clock shows one after another."""
    shown = []
    monkeypatch.setattr(time, 'perf_counter', lambda: shown.pop(0))
    monkeypatch.setattr(time, 'process_time', lambda: 2 * shown.pop(0))
    return shown


def test_laps_of_one_name_add_up(clock):
    for moment in (10.0, 11.0, 20.0, 22.0, 30.0, 34.0):
        clock.extend([moment, moment])
    watch = Stopwatch(torch.device('cpu'))
    for name in ('a', 'b', 'a'):
        with watch.lap(name):
            pass
    assert watch.laps == {'a': 5.0, 'b': 2.0}
    assert watch.cpu_laps == {'a': 10.0, 'b': 4.0}
    watch.reset()
    assert watch.laps == watch.cpu_laps == {}


@pytest.fixture
def sides():
    """Two sides that write down their turns, and how many they have had by then as their time."""
    turns = []

    def side(name):
        def take_turn():
            turns.append(name)
            return {'step': float(len(turns))}

        return take_turn

    return {'a': side('a'), 'b': side('b')}, turns


def test_sides_take_turns_and_every_second_round_is_reversed(sides):
    callables, turns = sides
    times = alternate(callables, rounds=2, warmup=1)
    assert turns == ['a', 'b', 'b', 'a', 'a', 'b']
    assert times == {'a': [{'step': 4.0}, {'step': 5.0}], 'b': [{'step': 3.0}, {'step': 6.0}]}


def test_the_summary_is_of_each_phase():
    runs = [{'x': 3.0, 'y': 1.0}, {'x': 1.0, 'y': 1.0}, {'x': 9.0, 'y': 4.0}]
    assert summarize(runs) == {'x': Spread(3.0, 1.0, 9.0), 'y': Spread(1.0, 1.0, 4.0)}
