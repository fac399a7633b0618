"""Hints at what was meant."""

from projects.cmt_aqr.usage_error import did_you_mean


def test_the_nearest_name_is_hinted_at_as_it_is_written():
    known = {'depth': 1, 'width': 2}
    assert did_you_mean('dept', known) == '; did you mean depth?'
    assert did_you_mean('dept', known, written={'depth': 'part.depth'}) == (
        '; did you mean part.depth?'
    )
    assert did_you_mean('zzz', known) == ''
    assert did_you_mean('dep', known, cutoff=0.9) == ''
