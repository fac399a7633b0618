"""The published RA belong to failures and severities of this project."""

import pytest

from projects.cmt_aqr.datasets.failures.suite import _ALL
from projects.cmt_aqr.evaluation.published import CMT_ON_NUSCENES, PublishedRA
from projects.cmt_aqr.evaluation.records import Record


def record(nds: float) -> Record:
    return Record(condition='', made_of={}, scores={'NDS': nds}, attention={})


def test_every_row_is_one_of_the_protocol():
    conditions = {name for row in _ALL for name in row.conditions}
    assert {name for row in CMT_ON_NUSCENES for name in row.conditions} <= conditions
    assert len({row.failure for row in CMT_ON_NUSCENES}) == len(CMT_ON_NUSCENES)
    assert all(0 < row.ra < 1 for row in CMT_ON_NUSCENES)


def test_ra_averages_the_severities_first():
    row = PublishedRA('fog', (1, 2), 0.8, 'somewhere')
    records = {'clean': record(0.5), 'fog_1': record(0.4), 'fog_2': record(0.2)}
    assert row.of(records) == pytest.approx(0.6)
    assert row.of({**records, 'clean': record(0.0)}) is None
    del records['fog_2']
    assert row.of(records) is None
