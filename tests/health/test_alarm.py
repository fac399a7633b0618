"""Health as an alarm: areas under curves by counting pairs, and false alarms by hand."""

import numpy as np
import pytest

from projects.cmt_aqr.health.alarm import Reports, alarm, mean_auroc, separation, threshold


def reports(lidar, cameras, lidar_sound=1.0, cameras_sound=1.0) -> Reports:
    lidar, cameras = np.array(lidar, float), np.array(cameras, float)
    return Reports(
        tokens=np.array([f't{i}' for i in range(len(lidar))]),
        names=np.array(['left', 'right']),
        lidar=lidar,
        cameras=cameras,
        lidar_sound=np.broadcast_to(lidar_sound, lidar.shape).astype(float),
        cameras_sound=np.broadcast_to(cameras_sound, cameras.shape).astype(float),
    )


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    sound, damaged = rng.integers(3, 12, 40) / 12, rng.integers(0, 9, 25) / 12  # with ties
    pairs = damaged[:, None] - sound
    expected = ((pairs < 0) + 0.5 * (pairs == 0)).mean()
    assert separation(sound, damaged).auroc == pytest.approx(expected)


def test_false_alarms_at_the_threshold_that_finds_95_percent():
    damaged = np.arange(20) / 20  # 19 of them are at most 0.9
    sound = np.array([0.5, 0.85, 0.9, 0.92, 0.99])
    assert separation(sound, damaged).false_alarms == pytest.approx(3 / 5)
    assert separation(sound, np.zeros(20)).false_alarms == 0


def test_without_one_kind_of_input_there_is_nothing_to_separate():
    assert separation(np.ones(3), np.ones(0)) is None
    assert separation(np.ones(0), np.ones(3)) is None


def test_each_sensor_is_held_against_sound_frames_and_a_camera_against_the_others():
    clean = reports([0.9, 0.8], [[0.9, 0.7], [0.8, 0.9]])
    failed = reports(
        [0.1, 0.85, 0.2],
        [[0.1, 0.6], [0.9, 0.9], [0.75, 0.65]],
        lidar_sound=[0, 1, 0],
        cameras_sound=[[0, 1], [1, 1], [1, 0]],
    )
    found = alarm(clean, failed)
    assert found.lidar == (1.0, 0.0)
    # The worst cameras are 0.1 and 0.65 in damaged frames, 0.7 and 0.8 in sound ones.
    assert found.cameras == (1.0, 0.0)
    # Damaged are 0.1 and 0.65, sound beside them 0.6 and 0.75.
    assert found.one_camera == (0.75, 0.5)
    assert found.alarmed == pytest.approx(2 / 3)


def test_a_failure_of_all_cameras_has_no_camera_to_tell_apart():
    clean = reports([0.9], [[0.9, 0.7]])
    found = alarm(clean, reports([0.9], [[0.1, 0.2]], cameras_sound=0))
    assert found.lidar is None
    assert found.one_camera is None
    assert mean_auroc([found, alarm(clean, clean)]) == 1.0
    assert np.isnan(mean_auroc([alarm(clean, clean)]))


def test_the_threshold_leaves_one_in_a_hundred_sound_frames_below():
    health = np.linspace(0, 1, 1001)
    clean = reports(health, np.ones((1001, 2)))
    assert (clean.worst < threshold(clean)).mean() == pytest.approx(0.01, abs=1e-3)


def test_a_camera_that_a_frame_lacks_does_not_count():
    one = reports([0.9], [[np.nan, 0.4]])
    assert one.worst_camera.tolist() == one.worst.tolist() == [0.4]
    assert reports([0.9], [[np.nan, np.nan]]).worst.tolist() == [0.9]


def test_reports_are_read_as_they_were_written(tmp_path):
    written = reports([0.9, 0.2], [[0.9, np.nan], [0.1, 0.3]], lidar_sound=[1, 0])
    written.save(tmp_path / 'r.npz')
    read = Reports.load(tmp_path / 'r.npz')
    for name, column in vars(written).items():
        np.testing.assert_array_equal(getattr(read, name), column)
