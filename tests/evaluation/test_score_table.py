"""The tables of scores that commands show."""

from projects.cmt_aqr.evaluation.score_table import score_line, score_table

PREFIX = 'NuScenes metric/pred_instances_3d_NuScenes/'
NAMED = {
    'car_AP_dist_0.5': 0.2,
    'car_AP_dist_1.0': 0.4,
    'car_trans_err': 0.5,
    'car_attr_err': 1.0,
    'car_AP': 0.3,
    'barrier_AP_dist_0.5': 0.0,
    'barrier_trans_err': 1.0,
    'barrier_attr_err': float('nan'),
    'mATE': 0.75,
    'NDS': 0.25,
    'mAP': 0.15,
}
METRICS = {**{f'{PREFIX}{name}': value for name, value in NAMED.items()}, 'gap': 30.0}


def test_a_row_for_each_class_and_nothing_of_hooks():
    assert score_table(METRICS).splitlines() == [
        'class       AP    ATE    AAE',
        'car      0.300  0.500  1.000',
        'barrier  0.000  1.000      –',
        'mean     0.150  0.750      –',
        'NDS  0.250',
    ]
    assert score_line(METRICS) == 'mAP 0.150  NDS 0.250'


def test_scores_without_classes_are_listed_up_to_a_limit():
    metrics = {f'plan/L2_{n}': float(n) for n in range(33)}
    lines = score_table(metrics).splitlines()
    assert lines[0].split() == ['L2_0', '0.000']
    assert len(lines) == 31
    assert lines[-1] == 'and 3 more in the log'
    assert score_line(metrics) == 'L2_0 0.000  L2_1 1.000  L2_2 2.000  L2_3 3.000'


def test_a_metric_without_a_name_is_shown():
    assert score_line({'count': 4.0}) == 'count 4.000'
