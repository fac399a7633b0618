"""RA and mRA by hand, and differences with the intervals of paired draws."""

import numpy as np
import pytest
from robustness_fixture import ROWS, make_comparison

from projects.cmt_aqr.evaluation.robustness import kept_scores

SCORES = {
    'clean': np.array([0.6, 0.5]),
    'fog_1': np.array([0.5, 0.4]),
    'fog_2': np.array([0.1, 0.2]),
    'drop_1': np.array([0.3, 0.45]),
}


def test_severities_are_averaged_first_and_failures_then():
    kept = kept_scores(SCORES, ROWS)
    assert list(kept) == ['clean', 'fog', 'drop', 'mean']
    assert kept['clean'] == pytest.approx((0.6, 0.5, 1.0))
    assert kept['fog'] == pytest.approx((0.3, 0.3, 0.6))
    assert kept['drop'] == pytest.approx((0.3, 0.45, 0.9))
    # Not the mean over the three conditions, of which fog has two.
    assert kept['mean'] == pytest.approx((0.3, 0.375, 0.75))


def test_resamples_are_treated_one_by_one():
    draws = {name: np.stack([scores, 2 * scores], axis=1) for name, scores in SCORES.items()}
    kept, once = kept_scores(draws, ROWS), kept_scores(SCORES, ROWS)
    for name, scores in once.items():
        np.testing.assert_allclose(kept[name].nds, [scores.nds, 2 * scores.nds])
        np.testing.assert_allclose(kept[name].ra, [scores.ra, scores.ra])


def test_of_nothing_no_share_is_kept():
    scores = dict(SCORES, clean=np.zeros(2))
    assert np.isnan(kept_scores(scores, ROWS)['mean'].ra)


def test_what_was_not_scored_is_not_averaged():
    with pytest.raises(KeyError, match='drop_1'):
        kept_scores({name: SCORES[name] for name in ('clean', 'fog_1', 'fog_2')}, ROWS)
    with pytest.raises(ValueError, match='no failures'):
        kept_scores(SCORES, [])


def test_a_difference_is_that_to_the_first_model_on_the_same_draws():
    comparison = make_comparison('first', 'second')
    first, second = comparison.models
    value, (low, high) = comparison.difference(second, 'fog', 'nds')
    assert value == pytest.approx(second.kept['fog'].nds - first.kept['fog'].nds)
    changes = second.draws['fog'].nds - first.draws['fog'].nds
    assert (low, high) == pytest.approx(tuple(np.quantile(changes, [0.025, 0.975])))
    assert low < value < high
    nothing = comparison.difference(first, 'fog', 'nds')
    assert (nothing.value, *nothing.interval) == (0, 0, 0)
