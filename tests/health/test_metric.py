"""The health reports of a test: collected, named and averaged."""

import json

import numpy as np
import pytest
import torch

from projects.cmt_aqr.health import HealthMetric


def sample(token, lidar, cameras, names=None, true=None) -> dict:
    """A sample as the evaluator passes it on."""
    found = dict(lidar=torch.tensor(lidar), cameras=torch.tensor(cameras))
    result = dict(token=token, pred_health=found)
    if names is not None:
        result['camera_names'] = names
    if true is not None:
        result['gt_health'] = dict(lidar=torch.tensor(true[0]), cameras=torch.tensor(true[1]))
    return result


def evaluated(*samples, **options) -> tuple[HealthMetric, dict]:
    metric = HealthMetric(**options)
    metric.process(None, samples)
    return metric, metric.evaluate(len(samples))


def test_means_by_sensor_and_reports_by_frame(tmp_path):
    file = tmp_path / 'health.json'
    metric, scores = evaluated(
        sample('a', 0.5, [0.25, 0.75], ['left', 'right'], (1.0, [0.0, 1.0])),
        sample('b', 1.0, [0.25], ['right'], (0.0, [1.0])),
        out_file=str(file),
    )
    assert scores == {'health/lidar': 0.75, 'health/left': 0.25, 'health/right': 0.5}
    reports = metric.reports
    assert [*reports.tokens] == ['a', 'b']
    np.testing.assert_array_equal(reports.cameras, [[0.25, 0.75], [np.nan, 0.25]])
    np.testing.assert_array_equal(reports.lidar_sound, [1, 0])
    np.testing.assert_array_equal(reports.cameras_sound, [[0, 1], [np.nan, 1]])
    assert json.loads(file.read_text()) == {
        'a': dict(lidar=0.5, left=0.25, right=0.75),
        'b': dict(lidar=1.0, right=0.25),
    }


def test_without_names_and_truth():
    metric, scores = evaluated(sample('a', 0.5, [0.25]))
    assert scores == {'health/lidar': 0.5, 'health/camera 0': 0.25}
    assert np.isnan(metric.reports.lidar_sound).all()


def test_a_model_without_a_monitor_is_refused():
    with pytest.raises(ValueError, match='give it a health_monitor'):
        HealthMetric().process(None, [dict(token='a')])
