"""One failure out of several, and another one in the next epoch."""

from collections import Counter

import pytest

from projects.cmt_aqr.datasets.failures import DrawIndex, RandomFailure

KINDS = [dict(type='LidarDrop'), dict(type='BeamReduction', severity=3), dict(type='PointsDrop')]


def drawn(failure, draw: int = 0, samples: int = 600) -> list[str]:
    """Kind drawn for each sample, '' for none."""
    results = (failure(dict(token=str(i), draw=draw)) for i in range(samples))
    names = [[type(one).__name__ for one in result['failures']] for result in results]
    assert max(map(len, names)) <= 1
    return [name[0] if name else '' for name in names]


def test_kinds_are_equally_likely():
    counts = Counter(drawn(RandomFailure(prob=0.75, failures=KINDS)))
    names = ['', 'DrawnBeamReduction', 'DrawnLidarDrop', 'DrawnPointsDrop']
    assert sorted(counts) == names
    assert all(count / 600 == pytest.approx(0.25, abs=0.06) for count in counts.values())


def test_each_draw_is_another_one_and_the_same_again():
    failure = RandomFailure(prob=0.5, failures=KINDS)
    assert drawn(failure, draw=1) == drawn(failure, draw=1)
    assert drawn(failure, draw=1) != drawn(failure, draw=2)
    assert drawn(failure) != drawn(RandomFailure(prob=0.5, failures=KINDS, seed=1))


@pytest.mark.parametrize(('prob', 'kinds'), [(0, {''}), (1, {'DrawnLidarDrop'})])
def test_never_and_always(prob, kinds):
    assert set(drawn(RandomFailure(prob=prob, failures=KINDS[:1]), samples=50)) == kinds


def test_two_in_a_row_can_damage_both_sensors():
    first, second = (RandomFailure(prob=1, failures=KINDS, seed=seed) for seed in (0, 1))
    assert len(second(first(dict(token='a')))['failures']) == 2


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(prob=1.5, failures=KINDS), 'prob is 1.5'),
        (dict(prob=0.5, failures=[]), 'failures is empty'),
        (dict(prob=0.5, failures=[dict(type='DrawIndex')]), 'DrawIndex.* is not a sensor failure'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomFailure(**arguments)


@pytest.mark.parametrize(
    ('variants', 'draws'), [(None, [0, 1, 2, 3, 4, 5]), (1, [0] * 6), (3, [0, 1, 2] * 2)]
)
def test_draws_are_numbered_by_the_epoch(variants, draws):
    index = DrawIndex(variants=variants)
    found = []
    for epoch in range(6):
        index.set_epoch(epoch)
        found.append(index({})['draw'])
    assert found == draws


@pytest.mark.parametrize(('variants', 'most'), [(3, 3), (None, 2**31)])
def test_draws_may_be_numbered_at_random(variants, most):
    index = DrawIndex(variants=variants, by_epoch=False)
    found = {index({})['draw'] for _ in range(50)}
    assert max(found) < most
    assert len(found) == min(most, 50)


def test_no_sample_before_the_epoch_is_known():
    with pytest.raises(RuntimeError, match=r'has no epoch.*; to read .*, call set_epoch\(0\)'):
        DrawIndex()({})


def test_no_variant_at_all():
    with pytest.raises(ValueError, match='variants is 0; it must be None or at least 1'):
        DrawIndex(variants=0)
