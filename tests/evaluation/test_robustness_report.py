"""What stands in the tables of a made-up comparison."""

import csv
import io
import json
from dataclasses import replace

import pytest
from robustness_fixture import make_comparison

from projects.cmt_aqr.evaluation.robustness_report import to_csv, to_json, to_markdown


@pytest.fixture(scope='module')
def comparison():
    return make_comparison('control', 'router', 'camera')


def cells(markdown: str, heading: str) -> list[list[str]]:
    """Rows of the first table after a heading, without its rule."""
    table = markdown.partition(heading)[2].partition('| ---')
    lines = [table[0].splitlines()[-1], *table[2].partition('\n\n')[0].splitlines()[1:]]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_scores_have_a_column_for_each_model(comparison):
    rows = cells(to_markdown(comparison), '# Robustness')
    assert rows == [
        ['failure', 'severity', 'control', 'router', 'camera'],
        ['clean', '', '60.0 / 50.0', '61.0 / 51.0', '62.0 / 52.0'],
        ['fog', '1', '50.0 / 40.0', '51.0 / 41.0', '52.0 / 42.0'],
        ['fog', '2', '30.0 / 20.0', '31.0 / 21.0', '32.0 / 22.0'],
        ['fog', '**RA**', '**0.600**', '**0.608**', '**0.615**'],
        ['drop', '1', '40.0 / 30.0', '41.0 / 31.0', '42.0 / 32.0'],
        ['drop', '**RA**', '**0.600**', '**0.608**', '**0.615**'],
        ['mean of 2 failures', '', '40.0 / 30.0', '41.0 / 31.0', '42.0 / 32.0'],
        ['mean of 2 failures', '**mRA**', '**0.600**', '**0.608**', '**0.615**'],
    ]


def test_differences_have_intervals(comparison):
    rows = cells(to_markdown(comparison), '## Against control')
    assert rows[0] == ['failure', 'router: NDS', 'router: mAP', 'camera: NDS', 'camera: mAP']
    assert [row[0] for row in rows[1:]] == ['clean', 'fog', 'drop', 'mean of 2 failures', 'mRA']
    change = comparison.difference(comparison.models[1], 'fog', 'nds')
    low, high = (100 * end for end in change.interval)
    assert rows[2][1] == f'+1.0 [{low:+.1f}, {high:+.1f}]'
    assert low < 1 < high
    assert rows[-1][1].startswith('+0.8 [')


def test_one_model_alone_is_held_against_nothing():
    assert '## Against' not in to_markdown(make_comparison('alone'))


def test_where_queries_look_is_told_of_models_that_look_at_both_sensors(comparison):
    rows = cells(to_markdown(comparison), '## Where queries look')
    figures = ['0.400 / 31.2 / 0.050', '0.500 / 31.2 / 0.050 / -0.500 / +0.250', '–']
    assert rows[1] == ['clean', '', *figures]
    assert len(rows) == 5


def test_what_was_run_and_what_differs_from_the_published_failures_is_told(comparison):
    text = to_markdown(comparison)
    assert (
        '- router: `c.py` with `w.pth` (SHA-256 abababababab…), commit ffffffffff with changes\n'
        in text
    )
    assert 'No config of this project trains with fog.' in text
    assert '- fog: No depth map.' in text
    assert '- drop' not in text


def test_the_csv_has_every_condition_and_every_mean(comparison):
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(lines) == 3 * (4 + 3)
    one = next(line for line in lines if (line['model'], line['severity']) == ('router', '2'))
    assert (one['failure'], one['w_lidar']) == ('fog', '-0.5')
    assert float(one['NDS']) == pytest.approx(0.21)
    mean = next(line for line in lines if line['failure'] == 'mean')
    assert float(mean['RA']) == pytest.approx(0.6)


def test_the_json_has_values_with_intervals(comparison):
    data = json.loads(to_json(comparison))
    assert (data['reference'], data['draws'], data['frames'], data['seed']) == (
        'control',
        200,
        40,
        3,
    )
    assert data['failures']['fog']['conditions'] == ['fog_1', 'fog_2']
    router = data['models']['router']
    assert router['conditions']['fog_1']['scores']['NDS'] == pytest.approx(0.41)
    assert router['failures']['mean']['ra']['value'] == pytest.approx(0.31 / 0.51)
    low, high = router['difference']['drop']['nds']['interval']
    assert low < 0.01 < high
    assert data['models']['control']['difference'] == {}


def test_ra_stands_beside_the_published_one_where_every_severity_was_scored(comparison):
    assert '## Beside' not in to_markdown(comparison)  # fog at severities 1 and 2 alone
    models = make_comparison('control', 'weak').models
    for model, fog in zip(models, (0.42, 0.2), strict=True):
        model.records['fog_3'] = replace(model.records['fog_2'], scores={'NDS': fog})
        model.records['lidar_drop_1'] = model.records['drop_1']
    rows = cells(to_markdown(replace(comparison, models=models)), '## Beside CMT')
    assert rows == [
        ['failure', 'severities', 'published', 'control', 'weak'],
        ['lidar_drop', '1', '0.61', '0.60', '0.61'],
        ['fog', '1, 2, 3', '0.81', '0.68', '0.54'],
        ['within 0.1', '', '', '1 of 2', '1 of 2'],
    ]
