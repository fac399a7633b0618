"""Clouds as mmdet3d loads them, and each damaged as read from its file."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps

from projects.cmt_aqr.datasets import clouds
from projects.cmt_aqr.datasets.failures import BeamReduction, DrawnFailure, LidarDrop
from projects.cmt_aqr.datasets.reading import DamagedFileError, MissingFileError
from projects.cmt_aqr.datasets.transforms import LoadPointsOfKeyframe, LoadPointsOfSweeps

KEYFRAME = dict(coord_type='LIDAR', load_dim=5, use_dim=5)


@dataclass(frozen=True)
class Seen(DrawnFailure):
    """Keeps every third point, and what it was shown of each cloud."""

    clouds: list = field(default_factory=list)

    def damage_points(self, points, to_keyframe, age):
        self.clouds.append((points.copy(), to_keyframe, age))
        return points[::3]


@pytest.fixture
def info(tmp_path) -> dict:
    """A keyframe and four sweeps of 96 points each, 32 rings, made while driving through a bend."""
    rng = np.random.default_rng(0)

    def cloud(name: str) -> str:
        points = rng.uniform(-20, 20, (96, 5)).astype(np.float32)
        points[::10, :3] /= 30  # some are close to the ego
        points[:, 3] = np.abs(points[:, 3])
        points[:, 4] = np.arange(96) % 32
        points.tofile(tmp_path / name)
        return str(tmp_path / name)

    sweeps = []
    for i in range(1, 5):
        angle = 0.05 * i
        lidar2sensor = np.eye(4)
        lidar2sensor[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        lidar2sensor[:3, 3] = [0.1 * i, 0.5 * i, 0.01]
        sweeps.append(
            dict(
                timestamp=100 - 0.05 * i,
                lidar_points=dict(lidar_path=cloud(f'{i}.bin'), lidar2sensor=lidar2sensor.tolist()),
            )
        )
    keyframe = dict(lidar_path=cloud('0.bin'))
    return dict(token='a', timestamp=100.0, lidar_points=keyframe, lidar_sweeps=sweeps)


def load(info: dict, keyframe=LoadPointsOfKeyframe, sweeps=LoadPointsOfSweeps, **options):
    np.random.seed(1)  # of the choice of sweeps
    results = keyframe(**KEYFRAME)(dict(info))
    options = dict(dict(use_dim=[0, 1, 2, 3, 4]), **options)
    return sweeps(**options)(results)['points'].tensor.numpy()


@pytest.mark.parametrize(
    'options',
    [
        dict(sweeps_num=10),
        dict(sweeps_num=4),
        dict(sweeps_num=2),
        dict(sweeps_num=2, test_mode=True),
        dict(sweeps_num=0),
        dict(remove_close=True),
        dict(use_dim=[0, 1, 2, 4]),
    ],
    ids=str,
)
def test_without_failures_as_mmdet3d(info, options):
    ours = load(info, **options)
    assert np.array_equal(
        ours, load(info, LoadPointsFromFile, LoadPointsFromMultiSweeps, **options)
    )
    assert np.array_equal(ours, load(dict(info, failures=[]), **options))


@pytest.mark.parametrize('close', [False, True])
def test_without_sweeps_as_mmdet3d(info, close):
    for gone in (dict(info, lidar_sweeps=[]), {k: info[k] for k in info if k != 'lidar_sweeps'}):
        options = dict(pad_empty_sweeps=True, remove_close=close, sweeps_num=2)
        theirs = load(gone, LoadPointsFromFile, LoadPointsFromMultiSweeps, **options)
        assert np.array_equal(load(gone, **options), theirs)


def test_each_cloud_is_damaged_as_read(info):
    seen = Seen()
    info['failures'] = [seen]
    load(info)
    paths = [info['lidar_points']['lidar_path']]
    paths += [sweep['lidar_points']['lidar_path'] for sweep in info['lidar_sweeps']]
    for (points, _, _), path in zip(seen.clouds, paths, strict=True):
        assert np.array_equal(points, np.fromfile(path, np.float32).reshape(-1, 5))
    assert [age for _, _, age in seen.clouds] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_what_is_left_is_where_it_would_have_been(info):
    whole = load(info).reshape(5, 96, 5)
    left = load(dict(info, failures=[Seen()])).reshape(5, 32, 5)
    assert np.array_equal(left, whole[:, ::3])


def test_the_matrix_takes_a_sweep_to_the_keyframe(info):
    seen = Seen()
    merged = load(dict(info, failures=[seen])).reshape(5, 32, 5)
    for (points, to_keyframe, _), loaded in zip(seen.clouds, merged, strict=True):
        places = points[::3, :3] @ to_keyframe[:3, :3].T + to_keyframe[:3, 3]
        np.testing.assert_allclose(places, loaded[:, :3], atol=1e-5)
    assert np.array_equal(seen.clouds[0][1], np.eye(4))


def test_rings_are_lost_in_all_clouds(info):
    """In the merged cloud channel 4 is the time: nothing could be told there any more."""
    damaged = load(BeamReduction(severity=3)(info))
    assert len(damaged) == 5 * 96 * 4 // 32
    ages, counts = np.unique(damaged[:, 4].round(3), return_counts=True)
    assert ages == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert counts.tolist() == [12] * 5


def test_failures_act_one_after_the_other(info):
    damaged = load(BeamReduction(rings=[9])(BeamReduction(severity=3)(info)))
    assert len(damaged) == 5 * 96 // 32


@pytest.mark.parametrize('close', [False, True])
def test_a_cloud_of_no_points(info, close):
    assert load(LidarDrop()(info), remove_close=close).shape == (0, 5)


def test_zeros_are_in_the_origin_of_the_keyframe(info):
    zeros = load(LidarDrop(mode='zeros')(info))
    assert zeros.shape == (5 * 96, 5)
    np.testing.assert_allclose(zeros[:, :4], 0, atol=1e-6)


def test_a_loader_that_drops_the_ring_cannot_apply_failures(info):
    loader = LoadPointsOfKeyframe(**dict(KEYFRAME, use_dim=4))
    assert loader(dict(info))['points'].shape == (96, 4)
    with pytest.raises(ValueError, match=r'use_dim is \[0, 1, 2, 3\]; failures need all'):
        loader(dict(info, failures=[Seen()]))


@pytest.mark.parametrize(
    ('name', 'what', 'remedy'),
    [('0.bin', 'cloud', ''), ('2.bin', 'sweep', ': sweeps are .* --max-sweeps 0')],
    ids=['keyframe', 'sweep'],
)
def test_missing_and_damaged_files_are_named_with_the_sample(info, tmp_path, name, what, remedy):
    path = tmp_path / name
    start = rf'^sample a: {what} .*{name}'
    path.write_bytes(path.read_bytes()[:-4])  # one number less
    with pytest.raises(DamagedFileError, match=f'{start} cannot be read: .*not whole points'):
        load(info)
    path.write_bytes(b'abc')
    with pytest.raises(DamagedFileError, match=f'{start} cannot be read: .*buffer'):
        load(info)
    path.unlink()
    with pytest.raises(MissingFileError, match=f'{start} does not exist{remedy}$'):
        load(info)


@pytest.fixture
def write(info, tmp_path):
    """A function that writes the keyframe and one sweep with these columns; returns the sample."""
    rng = np.random.default_rng(1)
    values = dict(
        zip('xyz', rng.normal(0, 20, (3, 80)), strict=True),
        intensity=rng.random(80),
        ring=np.arange(80) % 64,
        time=rng.random(80) / 20,
        unused=rng.normal(size=80),
    )

    def write(columns, declared=None, points=80):
        table = np.stack([values[name] for name in columns], axis=1).astype(np.float32)
        for name in ('0.bin', '1.bin'):
            table[:points].tofile(tmp_path / name)
        sample = dict(info, lidar_sweeps=info['lidar_sweeps'][:1])
        if declared is not None:
            sample['point_columns'] = declared
        return sample, values

    return write


@pytest.mark.parametrize(
    'columns',
    [
        ['x', 'y', 'z', 'intensity'],
        ['intensity', 'unused', 'x', 'y', 'z'],
        ['x', 'y', 'z', 'intensity', 'ring', 'unused'],
        ['x', 'y', 'z', 'time', 'intensity', 'ring'],
    ],
    ids=' '.join,
)
def test_columns_are_declared_once_for_keyframe_and_sweeps(write, columns):
    sample, values = write(columns, declared=columns)
    seen = Seen()
    points = load(dict(sample, failures=[seen]))
    assert points.shape == (2 * 27, 5)
    zero = np.zeros(80)
    for cloud, _, _ in seen.clouds:
        ring = values['ring'] if 'ring' in columns else zero
        expected = [*(values[name] for name in ('x', 'y', 'z', 'intensity')), ring]
        np.testing.assert_allclose(cloud[:, :5], np.stack(expected, axis=1), rtol=1e-6)
    age = values['time'][::3] if 'time' in columns else zero[::3]
    np.testing.assert_allclose(points[:, 4], np.concatenate([age, age + 0.05]), atol=1e-6)


@pytest.mark.parametrize(
    ('columns', 'points', 'declared', 'line'),
    [
        ('x y z intensity', 80, None, 'read as 5 columns .*, intensity is negative in .* of 64'),
        ('x y z intensity', 79, None, 'its 316 numbers are not whole points of 5 columns'),
        ('x y z intensity ring', 80, 'x y z intensity', 'intensity is negative'),
        ('x y z intensity ring', 79, 'x y z intensity', 'its 395 numbers are not whole points'),
        ('x y z intensity unused', 80, None, 'ring is not a whole number from 0'),
    ],
)
def test_a_cloud_that_does_not_fit_its_columns_is_named(write, columns, points, declared, line):
    sample, _ = write(columns.split(), points=points, declared=declared and declared.split())
    with pytest.raises(DamagedFileError, match=line) as error:
        load(sample)
    assert 'sample a: cloud' in str(error.value)
    assert '0.bin' in str(error.value)
    assert 'metainfo.point_columns' in str(error.value)


def test_sweeps_need_the_channel_that_becomes_the_time(info):
    points = LoadPointsOfKeyframe(**dict(KEYFRAME, use_dim=4))(dict(info))
    with pytest.raises(ValueError, match=r'has 4 channels, but the time .*: use_dim=5'):
        LoadPointsOfSweeps()(points)


def test_points_that_are_not_finite_are_counted_and_left_out(info, monkeypatch):
    lines = []
    monkeypatch.setattr(clouds, 'print_log', lambda line, **_: lines.append(line))
    monkeypatch.setattr(clouds, '_damaged_clouds', 0)
    path = info['lidar_points']['lidar_path']
    points = np.fromfile(path, np.float32).reshape(-1, 5)
    points[3, 2], points[7, 3] = np.nan, np.inf
    points.tofile(path)
    for _ in range(12):
        assert load(info, sweeps_num=0).shape == (94, 5)
    assert len(lines) == 2
    assert f'sample a: {path} has NaN or infinite values in 2 of 96 points' in lines[0]
    assert lines[1].endswith('so far in this process: 10')


def test_intensity_is_squashed_on_request(info):
    plain, squashed = (
        LoadPointsOfKeyframe(**KEYFRAME, norm_intensity=norm)(dict(info))['points'].tensor
        for norm in (False, True)
    )
    np.testing.assert_allclose(squashed[:, 3], np.tanh(plain[:, 3]), rtol=1e-6)
    assert squashed[:, [0, 1, 2, 4]].equal(plain[:, [0, 1, 2, 4]])
