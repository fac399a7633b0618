"""Every failure on rigs with any cameras and points: it occurs, or one line says what it needs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes

from projects.cmt_aqr.datasets.failures import Fog
from projects.cmt_aqr.datasets.failures.suite import PROTOCOLS, protocol

FORWARD = [[0.0, -1, 0, 0], [0, 0, -1, 0.2], [1, 0, 0, 0], [0, 0, 0, 1]]  # LiDAR x forward, z up
COLUMNS = ['x', 'y', 'z', 'intensity']
SIZES = [(60, 96), (48, 80), (120, 192)]


@pytest.fixture
def make(tmp_path):
    """A function that makes a sample as a dataset gives it, and the info file that has it."""

    def make(cameras, columns, bare=False):
        images = {
            f'eye {i}': dict(
                img_path=f'{tmp_path}/eyes/{i}/1.jpg',
                cam2img=[[90.0, 0, 48, 0], [0, 90, 30, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
                lidar2cam=FORWARD,
            )
            for i in range(cameras)
        }
        sample = dict(
            token='b',
            timestamp=0.5,
            scene='north',
            point_columns=columns,
            num_rings=64,
            lidar_points=dict(lidar_path=f'{tmp_path}/clouds/1.bin'),
            images=images,
            ann_info=dict(gt_bboxes_3d=LiDARInstance3DBoxes(torch.ones(2, 9), box_dim=9)),
        )
        entries = []
        for number, token in enumerate(('a', 'b')):
            entry = copy.deepcopy(dict(sample, token=token, timestamp=number / 2))
            entry['lidar_points']['lidar_path'] = f'clouds/{number}.bin'
            for i, camera in enumerate(entry['images'].values()):
                camera['img_path'] = f'eyes/{i}/{number}.jpg'
            del entry['ann_info']
            entries.append(entry)
        path = tmp_path / f'{cameras}.pkl'
        path.write_bytes(pickle.dumps(dict(metainfo={}, data_list=entries)))
        if bare:
            del sample['timestamp'], sample['images']
        return sample, str(path)

    return make


@pytest.mark.parametrize('columns', [COLUMNS, [*COLUMNS, 'ring']], ids=' '.join)
@pytest.mark.parametrize('cameras', [0, 1, 5])
@pytest.mark.parametrize('suite', PROTOCOLS)
def test_every_failure_occurs_or_says_what_it_needs(make, suite, cameras, columns):
    cloud = np.abs(np.random.default_rng(0).normal(0, 10, (50, 5))).astype(np.float32)
    cloud[:, 4] = np.arange(50) % 64
    lines = {}
    for bare in (False, True):
        sample, ann_file = make(cameras, columns, bare=bare)
        for row in protocol(suite, ann_file=ann_file):
            for failure in row.conditions.values():
                try:
                    results = TRANSFORMS.build(failure)(copy.deepcopy(sample))
                except ValueError as error:
                    lines[row.name, failure['type'], bare] = str(error)
                    continue
                for drawn in results['failures']:
                    damaged = drawn.damage_points(cloud.copy(), np.eye(4), 0.0)
                    assert damaged.shape[1] == 5
                    for size, name in zip(SIZES, sample.get('images', ()), strict=False):
                        image = drawn.damage_image(np.full((*size, 3), 99, np.uint8), name)
                        assert image.shape == (*size, 3)
                        assert drawn.camera_health(name, (6, 10)).shape == (6, 10)
    for (_, kind, _), line in lines.items():
        assert kind in line
        assert 'sample b' in line
    whole = {name for name, _, bare in lines if not bare}
    of_cameras = {row.name for row in protocol(suite, ann_file=ann_file)} - {
        'lidar_drop', 'limited_fov', 'object_failure', 'points_drop', 'beam_reduction', 'fog',
        'ghost_points',
    }  # fmt: skip
    assert whole - {'beam_reduction'} == (set() if cameras else of_cameras)
    assert ('beam_reduction' in whole) == ('ring' not in columns)


def test_beams_are_those_of_the_declared_lidar(make):
    sample, _ = make(1, [*COLUMNS, 'ring'])
    (drawn,) = TRANSFORMS.build(dict(type='BeamReduction', severity=3))(sample)['failures']
    assert (drawn.rings, drawn.num_rings) == (tuple(range(1, 64, 8)), 64)


def test_fog_on_the_ground_without_the_pose_of_the_vehicle(make):
    """The camera is 0.2 m above the LiDAR, which is taken to be 1.8 m high."""
    sample, _ = make(1, COLUMNS)
    (drawn,) = Fog()(sample)['failures']
    assert drawn.heights == pytest.approx([2.0])
    np.testing.assert_allclose(drawn.upwards, [[0, -1, 0]], atol=1e-9)
    sample['lidar_points']['lidar2ego'] = [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]
    sample = {key: value for key, value in sample.items() if key != 'failures'}
    assert Fog()(sample)['failures'][0].heights == pytest.approx([3.2])


def test_the_previous_keyframe_is_found_below_the_data_root(make, tmp_path):
    sample, ann_file = make(5, COLUMNS)
    for sensor in ('camera', 'lidar'):
        for seed in range(20):
            failure = dict(type='StaleFrame', ann_file=ann_file, sensor=sensor, seed=seed)
            results = TRANSFORMS.build(failure)(copy.deepcopy(sample))
            if results['failures']:
                break
        cameras = {name: camera['img_path'] for name, camera in results['images'].items()}
        cloud = results['lidar_points']['lidar_path']
        if sensor == 'camera':
            assert cameras == {f'eye {i}': f'{tmp_path}/eyes/{i}/0.jpg' for i in range(5)}
        else:
            assert cloud == f'{tmp_path}/clouds/0.bin'
