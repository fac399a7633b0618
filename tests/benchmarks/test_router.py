"""What a router takes of a step, the table, and that every form is measured."""

import argparse
from pathlib import Path

import pytest
import torch

from projects.cmt_aqr.benchmarks import router
from projects.cmt_aqr.benchmarks.training_step import TrainingStep
from projects.cmt_aqr.usage_error import UsageError

CPU = torch.device('cpu')


def times(step: float) -> dict[str, float]:
    """Of a step in which half of the time nothing is computed, for others do."""
    phases = {'step': step, 'forward/head': 0.25, 'backward/head': 0.5}
    return phases | {f'cpu/{phase}': seconds / 2 for phase, seconds in phases.items()}


@pytest.fixture
def results():
    runs = {
        router.WITHOUT: [times(s) for s in (4.0, 3.0, 9.0)],
        'bias': [times(s) for s in (5.0, 4.0, 6.0)],
    }
    facts = {name: dict(trainable=2_000_000) for name in runs}
    return router.compare(runs, facts, {router.WITHOUT: 10**9, 'bias': 2 * 10**9})


def test_a_router_takes_what_a_step_without_does_not_need(results):
    assert results[router.WITHOUT]['time_taken'] == 0
    assert results['bias']['time_taken'] == pytest.approx(1 / 5)
    assert results['bias']['work_taken'] == pytest.approx(1 / 5)
    assert results['bias']['memory_share'] == 2


def test_the_table(results):
    lines = router._table(results, on_cpu=True).splitlines()
    assert lines[0].count('router') == 2
    assert lines[3] == (
        '| bias | 2.00 M | 250.0 ms | 500.0 ms | 5.00 s (4.00 s–6.00 s) | 20.0% '
        '| 2.50 s (2.00 s–3.00 s) | 20.0% | 2.00 GB (2.00×) |'
    )
    assert 'processor time' not in router._table(results, on_cpu=False)


@pytest.mark.parametrize('form', router.FORMS)
def test_every_form_takes_a_step(repo_root, form):
    """By the recipe's own table of rates, whatever the form has to learn."""
    step = TrainingStep(
        config=str(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'),
        options=router.FORMS[form],
        data_root=None,
        device=CPU,
    )
    routing = step.model.pts_bbox_head.router.attention_bias_generator
    assert type(routing).__name__ == router.FORMS[form][f'{router._AQR}.routing.type']
    assert step()['forward/head'] > 0


def test_a_config_that_is_not_there_is_refused(tmp_path):
    args = argparse.Namespace(config=tmp_path / 'none.py', without=Path('also_none.py'))
    with pytest.raises(UsageError, match=r'none\.py does not exist'):
        router.run(args)
