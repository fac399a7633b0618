"""The protocols by name: every condition can be built, and each row says where it departs."""

import pytest
from mmdet3d.registry import TRANSFORMS

from projects.cmt_aqr.datasets import failures
from projects.cmt_aqr.datasets.failures import SensorFailure
from projects.cmt_aqr.datasets.failures.suite import PROTOCOLS, UNSEEN, protocol


@pytest.fixture
def rows(synthetic_root):
    def read(name: str, **options):
        return protocol(name, ann_file=f'{synthetic_root}/nuscenes_infos_val.pkl', **options)

    return read


@pytest.mark.parametrize('name', PROTOCOLS)
def test_every_condition_can_be_built(rows, name):
    for row in rows(name, seed=5):
        for condition, config in row.conditions.items():
            failure = TRANSFORMS.build(config)
            assert isinstance(failure, SensorFailure)
            assert condition == f'{row.name}_{failure.severity}'
            assert failure.seed == 5


def test_mome_has_six_failures_at_one_severity_each(rows):
    assert [list(row.conditions) for row in rows('mome')] == [
        ['beam_reduction_3'],
        ['lidar_drop_1'],
        ['limited_fov_2'],
        ['object_failure_1'],
        ['view_drop_1'],
        ['occlusion_2'],
    ]


def test_multicorrupt_has_three_severities_of_eight_failures(rows):
    assert [row.severities for row in rows('multicorrupt')] == [(1, 2, 3)] * 8


@pytest.mark.parametrize('name', ['mome', 'multicorrupt'])
def test_rows_of_published_protocols_say_where_they_depart(rows, name):
    assert all(row.departure.endswith('.') for row in rows(name))


def test_all_has_every_failure_at_every_severity(rows):
    kinds = {
        kind.__name__: tuple(range(1, len(kind.SEVERITIES) + 1))
        for kind in vars(failures).values()
        if isinstance(kind, type) and issubclass(kind, SensorFailure) and kind is not SensorFailure
    }
    assert {row.failure['type']: row.severities for row in rows('all')} == kinds
    # Cameras alone and all sensors repeat a keyframe by one class.
    assert len(rows('all')) == len(kinds) + 1 == 17
    assert set(UNSEEN) < {row.name for row in rows('all')}


def test_an_unknown_protocol_is_named_with_those_that_are_there():
    with pytest.raises(ValueError, match=r"'moma'; .* one of \['mome', 'multicorrupt', 'all'\]"):
        protocol('moma', ann_file='infos.pkl')
