"""What stands in the tables of a made-up comparison."""

import csv
import io
import json
from dataclasses import replace

import pytest
from robustness_fixture import make_comparison

from projects.cmt_aqr.evaluation.robustness import ScoredAlarm
from projects.cmt_aqr.evaluation.robustness_report import to_csv, to_json, to_markdown
from projects.cmt_aqr.health.alarm import Alarm, Separation


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


@pytest.fixture
def with_alarms():
    """The second of two models has a health monitor, under fog, which is not trained with."""
    comparison = make_comparison('control', 'monitored')
    seen, unseen = Separation(0.9625, 0.25), Separation(0.75, 0.5)
    alarms = {
        'clean': ScoredAlarm(Alarm(None, None, None, 0.01), 0.51),
        'fog_1': ScoredAlarm(Alarm(unseen, unseen, None, 0.5), 0.4),
        'fog_2': ScoredAlarm(Alarm(unseen, unseen, unseen, 1.0), None),
        'drop_1': ScoredAlarm(Alarm(seen, None, None, 1.0), None),
    }
    models = [comparison.models[0], replace(comparison.models[1], alarms=alarms)]
    return replace(comparison, models=models)


def test_health_is_reported_as_an_alarm(with_alarms):
    text = to_markdown(with_alarms)
    assert text.count('## Health as an alarm') == 1
    rows = cells(text, '## Health as an alarm: monitored')
    assert [row[0] for row in rows] == ['condition', 'clean', 'fog_1', 'fog_2', 'drop_1']
    assert rows[1][1:] == ['–', '–', '–', '1%', '51.0']
    assert rows[3][1:] == ['0.750 / 50%', '0.750 / 50%', '0.750 / 50%', '100%', '–']
    assert rows[4][1:] == ['0.963 / 25%', '–', '–', '100%', '–']
    assert 'sensors: seen in training 0.963, unseen in training 0.750.' in text


def test_the_alarm_is_in_csv_and_json(with_alarms):
    lines = list(csv.DictReader(io.StringIO(to_csv(with_alarms))))
    drop = next(row for row in lines if (row['model'], row['failure']) == ('monitored', 'drop'))
    assert (drop['auroc_lidar'], drop['auroc_cameras']) == ('0.9625', '')
    assert (drop['alarmed'], drop['NDS_without_alarm']) == ('1.0', '')
    models = json.loads(to_json(with_alarms))['models']
    assert models['control']['alarms'] == {}
    assert models['monitored']['alarms']['fog_1']['NDS_without_alarm'] == 0.4


def test_plans_are_reported_under_each_condition_beside_constant_velocity():
    comparison = make_comparison('planned', 'plain')
    assert '## Plans' not in to_markdown(comparison)
    first = comparison.models[0]
    for index, (name, record) in enumerate(first.records.items()):
        plan = dict(L2_to_3s=index + 0.25, L2_at_3s=index + 0.5, collision_to_3s=index + 1.0)
        steady = {f'constant_velocity_{key}': 2 * value for key, value in plan.items()}
        less = {
            f'{quantity}_less_constant_velocity{end}': sign * index + shift
            for quantity, sign in (('L2', -1), ('collision', 1))
            for end, shift in (('', 0.5), ('_low', 0.25), ('_high', 0.75))
        }
        first.records[name] = replace(record, plan=plan | steady | less)
    rows = cells(to_markdown(comparison), '## Plans')
    assert rows == [
        ['failure', 'severity', 'planned', 'plain'],
        ['clean', '', '0.25, 0.50 / 1.0', '–'],
        ['fog', '1', '1.25, 1.50 / 2.0', '–'],
        ['fog', '2', '2.25, 2.50 / 3.0', '–'],
        ['drop', '1', '3.25, 3.50 / 4.0', '–'],
        ['constant velocity', '', '0.50, 1.00 / 2.0', '–'],
    ]
    rows = cells(to_markdown(comparison), 'Distance / collisions up to 3 s minus')
    assert rows[2] == ['fog', '1', '-0.50 [-0.75, -0.25] / +1.50 [+1.25, +1.75]', '–']
    assert len(rows) == 5
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert [line['plan_L2_to_3s'] for line in lines[:2]] == ['0.25', '1.25']
