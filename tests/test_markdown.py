"""Tables and durations."""

import pytest

from projects.cmt_aqr.markdown import duration, table


def test_a_table_is_markdown():
    assert table(('', 'a'), [('x', '1'), ('y', '2')]).splitlines() == [
        '|  | a |',
        '| --- | ---: |',
        '| x | 1 |',
        '| y | 2 |',
    ]


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.0, '0.0 ms'), (0.0125, '12.5 ms'), (1.0, '1.00 s'), (74.384, '74.38 s')],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
