"""Sides in processes of their own: what they raise, return, and need at most."""

import os
from functools import partial

import pytest
import torch

from benchmarks.processes import PeakMemory, SideProcess

CPU = torch.device('cpu')
MEGABYTES = 10**6


class Hoard:
    """A side that holds so many megabytes while it works, and lets them go."""

    def __init__(self, *, megabytes: int) -> None:
        if megabytes < 0:
            raise ValueError(f'megabytes is {megabytes}')
        self.megabytes = megabytes
        self.turns = 0

    @property
    def facts(self) -> tuple[int, int, int]:
        return os.getpid(), torch.get_num_threads(), self.turns

    def __call__(self) -> dict[str, float]:
        torch.ones(self.megabytes * MEGABYTES, dtype=torch.uint8)
        self.turns += 1
        return {'step': float(self.turns)}


@pytest.fixture
def start(monkeypatch):
    """Start a side; its process finds this module by the name of the file."""
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    from test_processes import Hoard

    def start(**settings):
        return SideProcess(partial(Hoard, **settings), device=CPU, threads=1)

    return start


@pytest.mark.slow
def test_each_side_lives_and_is_watched_by_itself(start):
    with start(megabytes=400) as large, start(megabytes=100) as small:
        assert [large(), large(), small()] == [{'step': 1.0}, {'step': 2.0}, {'step': 1.0}]
        facts = [large.facts(), small.facts()]
        assert len({os.getpid(), *(pid for pid, *_ in facts)}) == 3
        assert [rest for _, *rest in facts] == [[1, 2], [1, 1]]
        assert 400 * MEGABYTES <= large.peak_memory() < 450 * MEGABYTES
        assert 100 * MEGABYTES <= small.peak_memory() < 150 * MEGABYTES


@pytest.mark.slow
def test_what_a_side_raises_is_raised_here(start):
    with pytest.raises(ValueError, match='megabytes is -1'), start(megabytes=-1):
        pass


def test_a_peak_stays_after_the_memory_is_let_go():
    peak = PeakMemory(CPU)
    torch.ones(PeakMemory(CPU).read() + 300 * MEGABYTES, dtype=torch.uint8)
    found = peak.read()
    assert found >= 250 * MEGABYTES  # pages of other data may have been let go meanwhile
    assert peak.read() >= found
