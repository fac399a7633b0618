"""Sensors that repeat their previous keyframe, on hand-made infos and on the synthetic database."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmdet3d.registry import DATASETS, TRANSFORMS
from mmengine.fileio import dump
from mmengine.registry import init_default_scope

from projects.cmt_aqr.datasets.failures import stale
from projects.cmt_aqr.datasets.failures.base import DrawnFailure
from projects.cmt_aqr.datasets.failures.stale import (
    DrawnStaleCameras,
    FrozenCamera,
    StaleFrame,
    find_previous_frames,
)
from projects.cmt_aqr.datasets.transforms import LoadMultiViewImages

CAMERAS = ('CAM_BACK', 'CAM_FRONT')
ALL_CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)


def info(log: str, time: float, sweeps: int = 2) -> dict:
    """As mmdet3d's converter writes it."""

    def name(channel: str, at: float) -> str:
        return f'{log}__{channel}__{round(at * 1e6)}'

    def sweep(age: float) -> dict:
        path = f'data/nuscenes/sweeps/LIDAR_TOP/{name("LIDAR_TOP", time - age)}.pcd.bin'
        lidar2sensor = (np.eye(4) * (time - age)).tolist()
        return dict(
            timestamp=time - age,
            lidar_points=dict(lidar_path=path, lidar2sensor=lidar2sensor),
        )

    return dict(
        token=f'{log}@{time:g}',
        timestamp=time,
        lidar_points=dict(lidar_path=f'{name("LIDAR_TOP", time)}.pcd.bin', num_pts_feats=5),
        lidar_sweeps=[sweep(0.05 * (i + 1)) for i in range(sweeps)],
        images={c: dict(img_path=f'{name(c, time)}.jpg', cam2img=[time]) for c in CAMERAS},
    )


def found(raw: dict) -> dict:
    """The sample as the dataset makes it of an info: with the paths of its files."""
    results = copy.deepcopy(raw)
    results['lidar_points']['lidar_path'] = f'/d/keys/{raw["lidar_points"]["lidar_path"]}'
    results['lidar_path'] = results['lidar_points']['lidar_path']
    for sweep in results['lidar_sweeps']:
        points = sweep['lidar_points']
        folder = 'keys' if 'samples' in points['lidar_path'] else 'between'
        points['lidar_path'] = f'/d/{folder}/{Path(points["lidar_path"]).name}'
    for camera, image in results['images'].items():
        image['img_path'] = f'/d/{camera}/{image["img_path"]}'
    return results


@pytest.fixture
def infos() -> list[dict]:
    """Frames of two logs at the same times, out of order, with a gap of a second in the first."""
    frames = [info('a', time) for time in (10.5, 10.0, 11.0, 12.0)]
    return [*frames[:2], info('b', 10.2), info('b', 10.7), *frames[2:]]


@pytest.fixture
def ann_file(tmp_path, infos) -> str:
    path = tmp_path / 'infos.pkl'
    dump(dict(metainfo={}, data_list=infos), path)
    return str(path)


def always(ann_file: str, **options) -> StaleFrame:
    """A failure that spares no sample."""
    failure = StaleFrame(ann_file=ann_file, severity=3, **options)
    failure.SEVERITIES = (1.0, 1.0, 1.0)
    return failure


@pytest.mark.parametrize(
    ('token', 'previous'),
    [
        ('a@10', None),
        ('a@10.5', 'a@10'),
        ('a@11', 'a@10.5'),
        ('a@12', None),
        ('b@10.2', None),
        ('b@10.7', 'b@10.2'),
    ],
)
@pytest.mark.parametrize('sensor', ['camera', 'lidar'])
def test_previous_keyframe_of_the_same_log_under_a_second_away(
    infos, ann_file, token, previous, sensor
):
    raw = next(frame for frame in infos if frame['token'] == token)
    results = always(ann_file, sensor=sensor)(found(raw))
    if previous is None:
        assert results.pop('failures') == []
        assert results == found(raw)
    else:
        assert results['failures'][0].previous.token == previous


def test_cameras_change_their_images_and_nothing_else(infos, ann_file):
    before, now = infos[1], infos[0]
    results = always(ann_file)(found(now))
    assert results.pop('failures')[0].cameras == CAMERAS
    expected = found(now)
    for camera in CAMERAS:
        expected['images'][camera]['img_path'] = found(before)['images'][camera]['img_path']
    assert results == expected


def test_lidar_changes_its_files_and_dates_them_as_new(infos, ann_file):
    before, now = found(infos[1]), found(infos[0])
    results = always(ann_file, sensor='lidar')(copy.deepcopy(now))
    assert results['lidar_path'] == before['lidar_path']
    assert results['lidar_points'] == before['lidar_points']
    for key in ('images', 'timestamp', 'token'):
        assert results[key] == now[key]
    assert len(results['lidar_sweeps']) == 2
    for ours, theirs in zip(results['lidar_sweeps'], before['lidar_sweeps'], strict=True):
        assert ours['lidar_points'] == theirs['lidar_points']
        age, age_then = now['timestamp'] - ours['timestamp'], 10.0 - theirs['timestamp']
        assert age == pytest.approx(age_then, abs=1e-9)


def test_the_sample_that_was_passed_in_keeps_its_files(infos, ann_file):
    for sensor in ('camera', 'lidar'):
        sample = found(infos[0])
        parts = {key: sample[key] for key in ('images', 'lidar_points', 'lidar_sweeps')}
        always(ann_file, sensor=sensor)(sample)
        assert parts == {key: found(infos[0])[key] for key in parts}


def test_a_sweep_that_is_a_keyframe_lies_among_the_keyframes(infos, tmp_path):
    key_sweep = infos[1]['lidar_sweeps'][1]['lidar_points']
    key_sweep['lidar_path'] = key_sweep['lidar_path'].replace('sweeps', 'samples')
    path = tmp_path / 'keys.pkl'
    dump(dict(metainfo={}, data_list=infos), path)
    results = always(str(path), sensor='lidar')(found(infos[0]))
    folders = [
        Path(sweep['lidar_points']['lidar_path']).parent.name for sweep in results['lidar_sweeps']
    ]
    assert folders == ['between', 'keys']


def test_folder_of_sweeps_that_cannot_be_told(infos, ann_file):
    sample = found(infos[0])
    sample['lidar_sweeps'] = []
    with pytest.raises(ValueError, match=r'sample a@10\.5 has no sweeps of its own'):
        always(ann_file, sensor='lidar')(sample)


def test_infos_without_sweeps(infos, tmp_path):
    for frame in infos:
        del frame['lidar_sweeps']
    path = tmp_path / 'single.pkl'
    dump(dict(metainfo={}, data_list=infos), path)
    sample = found(dict(infos[0], lidar_sweeps=[]))
    del sample['lidar_sweeps']
    results = always(str(path), sensor='lidar')(sample)
    assert results['lidar_path'] == '/d/keys/a__LIDAR_TOP__10000000.pcd.bin'
    assert 'lidar_sweeps' not in results


def test_a_cloud_without_sweeps_is_repeated_without_them(infos, tmp_path):
    """As the second keyframe of a scene repeats the first, of which the converter lists none."""
    del infos[1]['lidar_sweeps']
    path = tmp_path / 'first.pkl'
    dump(dict(metainfo={}, data_list=infos), path)
    results = always(str(path), sensor='lidar')(found(infos[0]))
    assert results['lidar_path'] == '/d/keys/a__LIDAR_TOP__10000000.pcd.bin'
    assert 'lidar_sweeps' not in results


def test_cameras_alone_repeat_their_images(infos, tmp_path):
    for frame in infos:
        for key in ('lidar_points', 'lidar_sweeps'):
            del frame[key]
        frame['scene'] = frame['token'].split('@')[0]
    path = tmp_path / 'cameras.pkl'
    dump(dict(metainfo={}, data_list=infos), path)
    sample = copy.deepcopy(infos[0])
    for camera, image in sample['images'].items():
        image['img_path'] = f'/d/{camera}/{image["img_path"]}'
    results = always(str(path))(sample)
    assert results['failures'][0].cameras == CAMERAS
    assert results['images']['CAM_BACK']['img_path'].endswith('10000000.jpg')


class TestEachCamera:
    def draws(self, infos, ann_file, severity: int) -> list[tuple[str, ...]]:
        failure = StaleFrame(ann_file=ann_file, sensor='each_camera', severity=severity)
        cameras = []
        for draw in range(400):
            failures = failure(dict(found(infos[0]), draw=draw))['failures']
            cameras.append(failures[0].cameras if failures else ())
        return cameras

    @pytest.mark.parametrize(('severity', 'probability'), [(1, 0.2), (2, 0.4), (3, 0.6)])
    def test_each_on_its_own(self, infos, ann_file, severity, probability):
        drawn = self.draws(infos, ann_file, severity)
        for camera in CAMERAS:
            share = np.mean([camera in cameras for cameras in drawn])
            assert share == pytest.approx(probability, abs=0.07)
        assert set(drawn) == {(), ('CAM_BACK',), ('CAM_FRONT',), CAMERAS}

    def test_only_the_stale_one_changes(self, infos, ann_file):
        failure = StaleFrame(ann_file=ann_file, sensor='each_camera', severity=1)
        now, before = found(infos[0]), found(infos[1])
        for draw in range(50):
            results = failure(dict(copy.deepcopy(now), draw=draw))
            if results['failures'] and results['failures'][0].cameras == ('CAM_BACK',):
                break
        assert results['images']['CAM_BACK']['img_path'] == before['images']['CAM_BACK']['img_path']
        assert results['images']['CAM_FRONT'] == now['images']['CAM_FRONT']

    def test_camera_that_was_not_there_before(self, infos, tmp_path):
        del infos[1]['images']['CAM_BACK']
        path = tmp_path / 'one.pkl'
        dump(dict(metainfo={}, data_list=infos), path)
        results = always(str(path))(found(infos[0]))
        assert results['failures'][0].cameras == ('CAM_FRONT',)
        assert results['images']['CAM_BACK'] == found(infos[0])['images']['CAM_BACK']


class TestEachSensor:
    def test_lidar_and_each_camera_on_their_own(self, infos, ann_file):
        failure = StaleFrame(ann_file=ann_file, sensor='each_sensor', severity=2)
        stale = []
        for draw in range(400):
            drawn = failure(dict(found(infos[0]), draw=draw))['failures']
            health = drawn[0] if drawn else DrawnFailure()
            lidar = health.lidar_health(np.zeros((1, 2)))
            cameras = [health.camera_health(camera, (1, 1)) for camera in CAMERAS]
            stale.append([float(maps.item()) == 0 for maps in (lidar, *cameras)])
        np.testing.assert_allclose(np.mean(stale, axis=0), 0.4, atol=0.07)
        assert len(np.unique(stale, axis=0)) == 8

    def test_all_files_change(self, infos, ann_file):
        before, now = found(infos[1]), found(infos[0])
        results = always(ann_file, sensor='each_sensor')(now)
        assert results['lidar_path'] == before['lidar_path']
        for camera in CAMERAS:
            assert results['images'][camera]['img_path'] == before['images'][camera]['img_path']

    def test_a_rig_without_lidar_is_refused(self, infos, ann_file):
        sample = found(infos[0])
        del sample['lidar_points']
        with pytest.raises(ValueError, match=r'sample a@10\.5 has no lidar_points'):
            always(ann_file, sensor='each_sensor')(sample)


@pytest.mark.parametrize('sensor', ['camera', 'lidar'])
@pytest.mark.parametrize(('severity', 'probability'), [(1, 0.2), (2, 0.4), (3, 0.6)])
def test_probabilities(infos, ann_file, sensor, severity, probability):
    failure = StaleFrame(ann_file=ann_file, sensor=sensor, severity=severity)
    hit = [bool(failure(dict(found(infos[0]), draw=i))['failures']) for i in range(400)]
    assert np.mean(hit) == pytest.approx(probability, abs=0.06)


def test_health_and_key(infos, ann_file):
    camera = always(ann_file, sensor='each_camera')(found(infos[0]))['failures'][0]
    assert camera.key == (
        "DrawnStaleCameras(cameras=('CAM_BACK', 'CAM_FRONT'), previous=PreviousFrame(token='a@10'))"
    )
    one = DrawnStaleCameras(('CAM_BACK',), camera.previous)
    assert one.camera_health('CAM_BACK', (2, 3)).tolist() == [[0.0] * 3] * 2
    assert one.camera_health('CAM_FRONT', (2, 3)).tolist() == [[1.0] * 3] * 2
    assert one.lidar_health(np.zeros((4, 2))).tolist() == [1.0] * 4
    lidar = always(ann_file, sensor='lidar')(found(infos[0]))['failures'][0]
    assert lidar.key == "DrawnStaleLidar(previous=PreviousFrame(token='a@10'))"
    assert lidar.lidar_health(np.zeros((4, 2))).tolist() == [0.0] * 4
    assert lidar.camera_health('CAM_BACK', (1, 2)).tolist() == [[1.0] * 2]


def test_count_of_samples_that_stay_is_logged(ann_file, monkeypatch):
    lines = []
    monkeypatch.setattr(stale, 'print_log', lambda line, logger: lines.append(line))
    StaleFrame(ann_file=ann_file)
    assert lines == [
        f'StaleFrame: 3 of 6 samples of {ann_file} have no keyframe less than 1 s before them and '
        'are unchanged'
    ]


def test_info_file_is_read_once_a_process(ann_file):
    find_previous_frames.cache_clear()
    for severity in (1, 2, 3):
        StaleFrame(ann_file=ann_file, severity=severity)
        StaleFrame(ann_file=ann_file, severity=severity, sensor='each_camera')
    assert find_previous_frames.cache_info().misses == 1


def test_draws_the_same_in_a_worker(infos, ann_file):
    failure = always(ann_file, sensor='lidar')
    worker = pickle.loads(pickle.dumps(failure))
    assert worker(found(infos[0])) == failure(found(infos[0]))


def test_wrong_sensor(ann_file):
    with pytest.raises(ValueError, match="sensor is 'radar'; it must be one of"):
        StaleFrame(ann_file=ann_file, sensor='radar')


def test_missing_info_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pkl'):
        StaleFrame(ann_file=str(tmp_path / 'gone.pkl'))


def test_sample_of_another_info_file(infos, ann_file):
    with pytest.raises(ValueError, match=f'sample x is not in {ann_file}'):
        always(ann_file)(dict(found(infos[0]), token='x'))


def test_files_not_named_as_in_nuscenes(infos, tmp_path):
    infos[2]['lidar_points']['lidar_path'] = '000003.bin'
    dump(dict(metainfo={}, data_list=infos), tmp_path / 'other.pkl')
    with pytest.raises(
        ValueError,
        match=r'log of sample b@10\.2 is unknown: .*cloud 000003\.bin is not named LOG__',
    ):
        StaleFrame(ann_file=str(tmp_path / 'other.pkl'))


class TestSyntheticDatabase:
    """With mmdet3d's own dataset, which has found the files: two scenes of three keyframes."""

    def dataset(self, root: Path, sensor: str):
        init_default_scope('mmdet3d')
        failure = TRANSFORMS.build(
            dict(type='StaleFrame', ann_file=str(root / 'nuscenes_infos_train.pkl'), sensor=sensor)
        )
        failure.SEVERITIES = (1.0,)
        prefix = dict(
            pts='samples/LIDAR_TOP',
            sweeps='sweeps/LIDAR_TOP',
            **{camera: f'samples/{camera}' for camera in ALL_CAMERAS},
        )
        return DATASETS.build(
            dict(
                type='NuScenesDataset',
                data_root=str(root),
                ann_file='nuscenes_infos_train.pkl',
                data_prefix=prefix,
                metainfo=dict(version='v1.0-mini'),
                modality=dict(use_lidar=True, use_camera=True),
                pipeline=[failure],
                test_mode=True,
            )
        )

    def test_images(self, synthetic_root):
        dataset = self.dataset(synthetic_root, 'camera')
        for index in range(6):
            results = LoadMultiViewImages()(dataset[index])
            first_of_scene = index % 3 == 0
            assert bool(results['failures']) != first_of_scene
            shown = dataset.get_data_info(index if first_of_scene else index - 1)
            assert results['filename'] == [image['img_path'] for image in shown['images'].values()]

    def test_clouds_and_sweeps(self, synthetic_root):
        dataset = self.dataset(synthetic_root, 'lidar')
        for index in range(6):
            results = dataset[index]
            shown = dataset.get_data_info(index - (index % 3 > 0))
            assert results['lidar_points'] == shown['lidar_points']
            assert [sweep['lidar_points'] for sweep in results['lidar_sweeps']] == [
                sweep['lidar_points'] for sweep in shown['lidar_sweeps']
            ]
            assert all(
                Path(sweep['lidar_points']['lidar_path']).is_file()
                for sweep in results['lidar_sweeps']
            )


@pytest.fixture
def long_log(tmp_path) -> tuple[list[dict], str]:
    """Six keyframes, half a second apart."""
    frames = [info('a', 10 + 0.5 * i) for i in range(6)]
    path = tmp_path / 'long.pkl'
    dump(dict(metainfo={}, data_list=frames), path)
    return frames, str(path)


@pytest.mark.parametrize(('severity', 'missed'), [(1, 2), (2, 4)])
def test_one_camera_is_frozen_for_some_keyframes(long_log, severity, missed):
    frames, ann_file = long_log
    failure = FrozenCamera(ann_file=ann_file, severity=severity)
    for index, raw in enumerate(frames):
        now = found(raw)
        results = failure(copy.deepcopy(now))
        drawn = results.pop('failures')
        if index < missed:
            assert drawn == []
        else:
            (name,) = drawn[0].cameras
            before = found(frames[index - missed])
            now['images'][name]['img_path'] = before['images'][name]['img_path']
        assert results == now


def test_the_frozen_camera_differs_between_samples(long_log):
    frames, ann_file = long_log
    cameras = {
        FrozenCamera(ann_file=ann_file, seed=seed)(found(frames[5]))['failures'][0].cameras
        for seed in range(10)
    }
    assert cameras == {(name,) for name in CAMERAS}


def test_a_frozen_camera_needs_the_info_file_of_the_sample(long_log):
    with pytest.raises(ValueError, match=r'FrozenCamera: sample b@1 is not in .*long.pkl'):
        FrozenCamera(ann_file=long_log[1])(found(info('b', 1.0)))
