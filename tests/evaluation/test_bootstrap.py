import numpy as np
import pytest
from detection_boxes import CONFIG, random_scene

from projects.cmt_aqr.evaluation.bootstrap import Interval, draw_frames, resample
from projects.cmt_aqr.evaluation.match_scores import score
from projects.cmt_aqr.evaluation.matches import Matches


def test_draws_have_as_many_frames_as_there_are():
    counts = draw_frames(40, 500, seed=0)
    assert counts.shape == (500, 40)
    assert (counts.sum(axis=1) == 40).all()
    # With replacement a frame is left out with probability (1 - 1/40)^40.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.01)
    np.testing.assert_array_equal(counts, draw_frames(40, 500, seed=0))
    assert not np.array_equal(counts, draw_frames(40, 500, seed=1))


@pytest.mark.parametrize(('frames', 'draws'), [(0, 10), (10, 0)])
def test_nothing_cannot_be_drawn(frames, draws):
    with pytest.raises(ValueError, match=f'{draws} draws of {frames} frames'):
        draw_frames(frames, draws, seed=0)


def test_resampled_scores_are_those_of_the_draws():
    matches = Matches.of(*random_scene(8), CONFIG)
    counts = draw_frames(8, 5, seed=2)
    mean_aps, nds = resample(matches, CONFIG, counts)
    expected = [score(matches, CONFIG, draw) for draw in counts]
    assert [*mean_aps] == [item.mean_ap for item in expected]
    assert [*nds] == [item.nds for item in expected]
    assert len(set(nds)) == 5


def test_the_interval_leaves_out_as_much_at_both_ends():
    low, high = Interval.of(np.arange(1001.0))
    assert (low, high) == pytest.approx((25, 975))
    assert Interval.of(np.arange(1001.0), share=0.5) == pytest.approx((250, 750))


def test_pairing_narrows_the_interval_of_a_difference():
    """Two models with much in common: same frames, same true boxes, a little more noise."""
    one, other = (Matches.of(*random_scene(40, noise=noise), CONFIG) for noise in (0.8, 0.85))
    counts, others = draw_frames(40, 100, seed=0), draw_frames(40, 100, seed=1)
    first = resample(one, CONFIG, counts)[1]
    paired = Interval.of(first - resample(other, CONFIG, counts)[1])
    unpaired = Interval.of(first - resample(other, CONFIG, others)[1])
    assert paired.high - paired.low < 0.8 * (unpaired.high - unpaired.low)
