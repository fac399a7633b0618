"""Calibration that says something else, and all other things as they were."""

import copy
import pickle

import numpy as np
import pytest
from mmdet3d.registry import TRANSFORMS
from scipy.spatial.transform import Rotation

from projects.cmt_aqr.datasets.failures.misalignment import (
    DrawnMisalignment,
    KnockedCamera,
    Misalignment,
)


@pytest.fixture
def sample() -> dict:
    lidar2cam = np.array([[1.0, 0, 0, 0.1], [0, 0, -1, -0.3], [0, 1, 0, -0.4], [0, 0, 0, 1]])
    cam2img = [[100.0, 0, 80], [0, 100.0, 40], [0, 0, 1]]
    images = {
        name: dict(img_path=name, cam2img=cam2img, lidar2cam=(scale * lidar2cam).tolist())
        for scale, name in enumerate(('CAM_FRONT', 'CAM_BACK'), start=1)
    }
    return dict(token='abc', images=images, lidar_points=dict(lidar_path='a'), timestamp=1.0)


def altered(sample: dict, degrees: float) -> dict:
    results = copy.deepcopy(sample)
    DrawnMisalignment(degrees, 2.0).alter(results)
    return results


@pytest.mark.parametrize(
    ('severity', 'share', 'degrees'), [(1, 0.2, 1.0), (2, 0.4, 2.0), (3, 0.6, 3.0)]
)
def test_severities(sample, severity, share, degrees):
    failure = TRANSFORMS.build(dict(type='Misalignment', severity=severity))
    drawn = []
    for token in range(500):
        drawn += failure(dict(copy.deepcopy(sample), token=str(token)))['failures']
    assert len(drawn) / 500 == pytest.approx(share, abs=0.05)
    assert set(drawn) == {DrawnMisalignment(degrees, 2.0)}


def test_points_are_taken_to_be_turned_and_shifted(sample):
    """Turned about x, then about y, then about z, each counter-clockwise; then 2 m along x."""
    c, s = np.cos(np.deg2rad(3)), np.sin(np.deg2rad(3))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    point = np.array([4.0, 20.0, -1.0])
    moved = about_z @ about_y @ about_x @ point + (2, 0, 0)
    for name, camera in altered(sample, 3.0)['images'].items():
        said = np.array(camera['lidar2cam']) @ [*point, 1]
        true = np.array(sample['images'][name]['lidar2cam']) @ [*moved, 1]
        np.testing.assert_allclose(said, true, rtol=1e-12)
        assert isinstance(camera['lidar2cam'], list)


def test_nothing_else_changes(sample):
    results = altered(sample, 3.0)
    for name, camera in results['images'].items():
        assert camera.pop('lidar2cam') != sample['images'][name]['lidar2cam']
        sample['images'][name].pop('lidar2cam')
    assert results == sample


def test_the_infos_own_calibration_stays(sample):
    before = copy.deepcopy(sample)
    results = dict(sample)
    DrawnMisalignment(1.0, 2.0).alter(results)
    assert sample == before
    assert results['images'] != before['images']


def test_lidar2img_follows_where_there_is_one(sample):
    camera = sample['images']['CAM_BACK']
    cam2img = np.eye(4)
    cam2img[:3, :3] = camera['cam2img']
    camera['lidar2img'] = (cam2img @ camera['lidar2cam']).tolist()
    camera = altered(sample, 2.0)['images']['CAM_BACK']
    np.testing.assert_allclose(camera['lidar2img'], cam2img @ camera['lidar2cam'], rtol=1e-12)


def test_transform_alters_the_samples_it_does_not_spare(sample):
    altered_at = []
    for token in range(20):
        results = Misalignment(severity=3)(dict(copy.deepcopy(sample), token=str(token)))
        altered_at.append(results['images'] != sample['images'])
        assert altered_at[-1] == bool(results['failures'])
    assert set(altered_at) == {True, False}


def test_severities_damage_the_same_samples_and_more(sample):
    hit = [
        {
            token
            for token in range(60)
            if Misalignment(severity=s)(dict(sample, token=str(token), failures=[]))['failures']
        }
        for s in (1, 2, 3)
    ]
    assert hit[0] < hit[1] < hit[2]


def test_health_of_cameras_is_gone_and_of_the_lidar_is_whole():
    drawn = pickle.loads(pickle.dumps(DrawnMisalignment(1.0, 2.0)))
    assert drawn.key == 'DrawnMisalignment(degrees=1.0, shift=2.0)'
    health = drawn.camera_health('CAM_FRONT', (3, 4))
    assert health.tolist() == [[0.0] * 4] * 3
    assert health.dtype == np.float32
    assert drawn.lidar_health(np.zeros((5, 2))).tolist() == [1.0] * 5
    image, points = np.ones((2, 2, 3), np.uint8), np.ones((2, 5), np.float32)
    assert drawn.damage_image(image, 'CAM_FRONT') is image
    assert drawn.damage_points(points, np.eye(4), 0.0) is points


def knocked(sample: dict, token: str, severity: int = 3) -> dict:
    return KnockedCamera(severity=severity)(dict(copy.deepcopy(sample), token=token))


@pytest.mark.parametrize(('severity', 'degrees'), [(1, 3.0), (2, 6.0), (3, 10.0)])
def test_one_camera_is_turned_about_its_centre(sample, severity, degrees):
    seen = set()
    for token in 'abcdefgh':
        results = knocked(sample, token, severity)
        (drawn,) = results['failures']
        seen.add(drawn.camera)
        for name, camera in results['images'].items():
            before = np.array(sample['images'][name]['lidar2cam'])
            error = np.array(camera['lidar2cam']) @ np.linalg.inv(before)
            angle = np.rad2deg(np.linalg.norm(Rotation.from_matrix(error[:3, :3]).as_rotvec()))
            assert angle == pytest.approx(degrees if name == drawn.camera else 0, abs=1e-4)
            np.testing.assert_allclose(error[:3, 3], 0, atol=1e-12)
            assert drawn.camera_health(name, (1, 2)).tolist() == [[name != drawn.camera] * 2]
    assert seen == {'CAM_FRONT', 'CAM_BACK'}


def test_the_projection_of_a_knocked_camera_follows(sample):
    for camera in sample['images'].values():
        camera['lidar2img'] = np.eye(4).tolist()
    results = knocked(sample, 'a')
    name = results['failures'][0].camera
    camera = results['images'].pop(name)
    image = np.eye(4)
    image[:3, :3] = camera['cam2img']
    np.testing.assert_allclose(camera['lidar2img'], image @ camera['lidar2cam'])
    assert [other['lidar2img'] for other in results['images'].values()] == [np.eye(4).tolist()]
    assert pickle.loads(pickle.dumps(results['failures'])) == results['failures']


def test_a_sample_without_cameras_has_none_to_knock(sample):
    with pytest.raises(ValueError, match='KnockedCamera: sample a has no images'):
        knocked({**sample, 'images': {}}, 'a')
