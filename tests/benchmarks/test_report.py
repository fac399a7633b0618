"""Units, the machine, and the load by other processes."""

import pytest
import torch

from benchmarks.report import OtherWork, gigabytes, machine, machine_line, spread
from benchmarks.timing import Spread


def test_units():
    assert spread(Spread(1.5, 0.5, 2.0)) == '1.50 s (500.0 ms–2.00 s)'
    assert gigabytes(2_345_678_901) == '2.35 GB'


def test_the_machine_is_named():
    facts = machine(torch.device('cpu'), threads=3)
    line = machine_line(facts, other_work=1.26)
    assert facts['threads'] == 3
    for part in ('Device cpu;', f'torch {torch.__version__};', 'other processes used 1.3;'):
        assert part in line


@pytest.fixture
def clocks(monkeypatch):
    """What the three clocks show one after another."""
    shown = []
    monkeypatch.setattr(OtherWork, '_now', staticmethod(lambda: shown.pop(0)))
    return shown


@pytest.mark.parametrize(('busy', 'cores'), [(65.0, 1.5), (45.0, 0.0)])
def test_other_work_is_what_is_not_our_own(clocks, busy, cores):
    """In 10 seconds the cores were busy for 25 or 5 seconds, and 10 of them for us."""
    clocks.extend([(100.0, 40.0, 7.0), (110.0, busy, 17.0)])
    assert OtherWork().cores() == pytest.approx(cores)
