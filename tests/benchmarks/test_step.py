"""The sides of the comparison, its arithmetic and its table."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import step
from benchmarks.processes import Measured
from benchmarks.training_step import BRANCHES
from projects.cmt_aqr.usage_error import UsageError

FACTS = {
    'cmt': dict(trainable=8_000_000, frozen_parts=[]),
    'frozen': dict(trainable=2_000_000, frozen_parts=['img_backbone', 'pts_backbone']),
}
PEAKS = {'cmt': 4 * 10**9, 'frozen': 10**9}


def times(*, step: float, forward: float, backbone: float) -> dict[str, float]:
    """A step during half of which the processor works for others."""
    phases = {
        'step': step,
        'input': 0.1,
        'forward': forward,
        'backward': 1.0,
        'update': 0.0125,
        'part/img_backbone': backbone,
        'part/pts_backbone': 0.5,
    }
    for branch in BRANCHES:
        phases |= {f'forward/{branch}': 0.1, f'backward/{branch}': 0.2}
    return phases | {f'cpu/{phase}': seconds / 2 for phase, seconds in phases.items()}


@pytest.fixture
def runs():
    return {
        'cmt': [times(step=s, forward=2.0, backbone=0.5) for s in (6.0, 5.0, 9.0)],
        'frozen': [times(step=s, forward=1.0, backbone=0.1) for s in (3.0, 2.0, 4.0)],
    }


def compare(runs):
    return step.compare(
        {name: Measured(runs[name], FACTS[name], PEAKS[name]) for name in ('cmt', 'frozen')}
    )


def test_sides_are_compared_with_the_first(runs):
    first, frozen = compare(runs).values()
    for ratio in ('speed_up', 'work_saved', 'memory_share', 'at_most'):
        assert first[ratio] == 1, ratio
    assert frozen['seconds']['step'] == (3.0, 2.0, 4.0)
    assert frozen['speed_up'] == pytest.approx(6 / 3)
    assert frozen['memory_share'] == pytest.approx(1 / 4)
    # The forward work of the frozen parts in the reference, of a step of 3 s; no backward work.
    assert frozen['at_most'] == pytest.approx(3 / (3 - 0.5))


def test_backward_work_that_a_side_saves_raises_its_limit(runs):
    """A trained neck behind a frozen backbone needs some of it."""
    for run in runs['frozen']:
        run['cpu/backward/camera'] = 0.025
    assert compare(runs)['frozen']['at_most'] == pytest.approx(3 / (3 - 0.5 - 0.075))


def test_what_the_reference_freezes_too_saves_nothing(runs, monkeypatch):
    """As where a router is added to a frozen detector."""
    monkeypatch.setitem(FACTS, 'cmt', FACTS['frozen'])
    assert compare(runs)['frozen']['at_most'] == 1


def test_a_gpu_has_no_processor_time(runs):
    for steps in runs.values():
        steps[:] = [{k: v for k, v in run.items() if not k.startswith('cpu/')} for run in steps]
    results = compare(runs)
    assert results['frozen']['work_saved'] == results['frozen']['speed_up']
    assert 'processor time' not in step._step_table(results, on_cpu=False)


def test_the_table(runs):
    args = argparse.Namespace(config='cmt.py', image_size=(32, 96), device=torch.device('cpu'))
    vars(args).update(rounds=3, warmup=1)
    lines = step._markdown(compare(runs), 'one sample', args).splitlines()
    assert lines[0].startswith('Training step of `cmt.py` and others on one sample, images of 32 x')
    assert lines[2:6] == [
        '|  | trained | forward | backward | update | step | faster | processor time | less '
        '| at most | peak |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| cmt | 8.00 M | 2.00 s | 1.00 s | 12.5 ms | 6.00 s (5.00 s–9.00 s) | 1.00× '
        '| 3.00 s (2.50 s–4.50 s) | 1.00× | 1.00× | 4.00 GB (1.00×) |',
        '| frozen | 2.00 M | 1.00 s | 1.00 s | 12.5 ms | 3.00 s (2.00 s–4.00 s) | 2.00× '
        '| 1.50 s (1.00 s–2.00 s) | 2.00× | 1.20× | 1.00 GB (0.25×) |',
    ]
    assert lines[7] == 'By branch, in processor time of all threads:'
    assert lines[9].startswith('|  | input | forward: camera |')
    assert lines[12].startswith('| frozen | 50.0 ms | 50.0 ms |')


def test_sides_are_configs_with_settings():
    against = [['b.py'], ['b.py', 'model.fast_path=None'], ['b.py', 'cached', 'x.y=2']]
    assert step.parse_sides(Path('a.py'), against) == {
        'a': (Path('a.py'), {}, False),
        'b': (Path('b.py'), {}, False),
        'b, model.fast_path=None': (Path('b.py'), {'model.fast_path': None}, False),
        'b, cached, x.y=2': (Path('b.py'), {'model.grid_mask': None, 'x.y': 2}, True),
    }


@pytest.mark.parametrize(
    ('against', 'message'),
    [
        (['b.py', 'cache'], r"--against b\.py cache: settings are KEY=VALUE, or 'cached'"),
        (['other/a.py'], 'a is given twice'),
    ],
)
def test_sides_that_cannot_be_are_refused(against, message):
    with pytest.raises(UsageError, match=message):
        step.parse_sides(Path('a.py'), [against])
