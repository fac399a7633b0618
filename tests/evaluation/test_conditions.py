import pytest
from robustness_fixture import ROWS

from projects.cmt_aqr.evaluation.conditions import choose_rows, conditions_of


def test_without_names_all_is_tested():
    assert choose_rows(ROWS, None) == ROWS


def test_a_failure_stands_for_all_its_severities_and_order_does_not_matter():
    assert choose_rows(ROWS, ['drop_1', 'fog']) == ROWS


def test_a_single_severity_can_be_chosen():
    (row,) = choose_rows(ROWS, ['fog_2'])
    assert (row.name, row.severities, row.departure) == ('fog', (2,), 'No depth map.')


def test_a_name_that_is_not_there_is_an_error_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"no condition 'fog_3'; it must be one of fog, drop, .* fog_2\?"
    ):
        choose_rows(ROWS, ['fog_3'])
    with pytest.raises(ValueError, match=r'for one severity$'):
        choose_rows(ROWS, ['zzz'])


def test_the_clean_condition_comes_first():
    assert conditions_of(ROWS) == {
        'clean': None,
        'fog_1': dict(type='Fog', severity=1),
        'fog_2': dict(type='Fog', severity=2),
        'drop_1': dict(type='LidarDrop', severity=1),
    }
