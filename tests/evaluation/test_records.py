"""Records on disk: what is read back, and what counts as something else."""

import numpy as np
import pytest
from detection_boxes import CONFIG, random_scene

from projects.cmt_aqr.evaluation.frames_metric import Scored
from projects.cmt_aqr.evaluation.matches import Matches
from projects.cmt_aqr.evaluation.predictions import Predictions
from projects.cmt_aqr.evaluation.records import IDENTITY, Record, Records, hash_of
from projects.cmt_aqr.health.alarm import Reports

MADE_OF = dict(
    config_sha256='c',
    checkpoint_sha256='w',
    frames_sha256='f',
    seed=0,
    dtype=None,
    failure=dict(p=(1, 2)),
)
RECORD = Record(
    condition='fog_1', made_of={**MADE_OF, 'commit': 'a1'}, scores=dict(mAP=0.5), attention={}
)


@pytest.fixture
def scored():
    truth, predicted = random_scene(3)
    return Scored(Predictions.of(predicted), Matches.of(truth, predicted, CONFIG))


@pytest.fixture
def records(tmp_path, scored):
    records = Records(tmp_path / 'model')
    records.write(RECORD, scored)
    return records


def test_a_record_is_read_back_with_its_matches(records, scored):
    record = records.read('fog_1', MADE_OF)
    assert record.scores == {'mAP': 0.5}
    assert record.made_of['commit'] == 'a1'
    np.testing.assert_array_equal(records.matches('fog_1').hit, scored.matches.hit)
    assert {path.name for path in records.folder.iterdir()} == {
        'fog_1.json', 'fog_1.matches.npz', 'fog_1.predictions.npz',
    }  # fmt: skip


def test_where_nothing_is_nothing_is_read(records):
    assert records.read('fog_2', MADE_OF) is None


@pytest.mark.parametrize('name', IDENTITY)
def test_a_record_of_something_else_does_not_count(records, name):
    assert records.read('fog_1', {**MADE_OF, name: 'other'}) is None


def test_another_commit_counts(records):
    assert records.read('fog_1', {**MADE_OF, 'commit': 'b2'}) is not None


def test_what_has_changed_is_named(records):
    assert records.changed('fog_1', {**MADE_OF, 'commit': 'b2'}) == []
    changed = {**MADE_OF, 'frames_sha256': 'g', 'dtype': 'bfloat16'}
    assert records.changed('fog_1', changed) == ['frames', 'precision']
    assert records.changed('fog_2', changed) == []  # not tested


def test_a_write_that_fails_leaves_no_record_of_other_boxes(records, scored, monkeypatch):
    monkeypatch.setattr(Matches, 'save', lambda self, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        records.write(RECORD, scored)
    assert records.read('fog_1', MADE_OF) is None


def test_equal_data_have_equal_hashes():
    assert hash_of(dict(a=1, b=[2])) == hash_of(dict(b=[2], a=1)) != hash_of(dict(a=1, b=[3]))


def test_reported_health_is_read_back_where_there_is_any(records, scored):
    assert records.health('fog_1') is None
    ones = np.ones((2, 3))
    health = Reports(
        tokens=np.array(['a', 'b']),
        names=np.array(['x', 'y', 'z']),
        lidar=ones[:, 0],
        cameras=ones,
        lidar_sound=ones[:, 0],
        cameras_sound=0 * ones,
    )
    records.write(RECORD, scored, health)
    np.testing.assert_array_equal(records.health('fog_1').cameras_sound, 0 * ones)
