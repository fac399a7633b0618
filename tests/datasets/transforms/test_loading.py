"""Images of any number of cameras, and what a missing one says."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from mmdet3d.datasets.transforms import LoadMultiViewImageFromFiles

from projects.cmt_aqr.datasets.failures import DrawnFailure
from projects.cmt_aqr.datasets.transforms import ComputeLidar2Img, LoadMultiViewImages

NAMES = ('CAM_FRONT', 'CAM_BACK', 'CAM_LEFT')


@pytest.fixture
def info(tmp_path) -> dict:
    images = {}
    for i, name in enumerate(NAMES):
        path = tmp_path / f'{name}.png'
        cv2.imwrite(str(path), np.full((4 + i, 6, 3), i + 1, np.uint8))
        calibration = dict(cam2img=np.eye(3).tolist(), lidar2cam=(np.eye(4) * (i + 1)).tolist())
        images[name] = dict(img_path=str(path), **calibration)
    return dict(token='abc', images=images)


def test_images_of_different_sizes(info):
    results = LoadMultiViewImages()(info)
    assert [image.shape for image in results['img']] == [(4, 6, 3), (5, 6, 3), (6, 6, 3)]
    assert [int(image[0, 0, 0]) for image in results['img']] == [1, 2, 3]
    assert results['filename'] == [info['images'][name]['img_path'] for name in NAMES]
    assert results['num_views'] == 3
    assert results['camera_names'] == list(NAMES)
    assert results['loaded_shapes'] == [(4, 6), (5, 6), (6, 6)]


def test_keys_are_those_of_mmdet3d(info):
    for camera in info['images'].values():
        camera['img_path'] = info['images']['CAM_FRONT']['img_path']
    theirs = LoadMultiViewImageFromFiles(color_type='color', num_views=3)(dict(info))
    ours = LoadMultiViewImages()(dict(info))
    assert set(theirs) - set(ours) == {'img_norm_cfg', 'num_ref_frames'}
    assert set(ours) - set(theirs) == {'camera_names', 'loaded_shapes'}
    assert all(map(np.array_equal, ours['img'], theirs['img']))
    for key in ('cam2img', 'lidar2cam', 'ori_cam2img', 'img_shape', 'ori_shape', 'filename'):
        assert ours[key] == theirs[key]


def test_missing_file_names_file_camera_and_sample(info):
    info['images']['CAM_BACK']['img_path'] += '.gone'
    with pytest.raises(FileNotFoundError, match=r'sample abc.*CAM_BACK\.png\.gone does not'):
        LoadMultiViewImages()(info)


@pytest.mark.parametrize('content', [b'', b'not an image'])
def test_damaged_file_is_named(info, content, tmp_path):
    (tmp_path / 'CAM_BACK.png').write_bytes(content)
    with pytest.raises(ValueError, match=r'sample abc: image of camera CAM_BACK .*BACK\.png'):
        LoadMultiViewImages()(info)


@pytest.mark.parametrize('how', ['gone', 'damaged', 'no path'])
def test_skip_leaves_the_camera_out(info, how, tmp_path):
    if how == 'gone':
        (tmp_path / 'CAM_BACK.png').unlink()
    elif how == 'damaged':
        (tmp_path / 'CAM_BACK.png').write_bytes(b'x')
    else:
        del info['images']['CAM_BACK']['img_path']
    results = ComputeLidar2Img()(LoadMultiViewImages(missing='skip')(info))
    assert [int(image[0, 0, 0]) for image in results['img']] == [1, 3]
    assert results['camera_names'] == ['CAM_FRONT', 'CAM_LEFT']
    assert results['lidar2img'].shape == (2, 4, 4)
    assert results['lidar2img'][1, 0, 0] == 3


def test_no_camera_left(info):
    for camera in info['images'].values():
        camera['img_path'] += '.gone'
    with pytest.raises(FileNotFoundError, match='no camera image left'):
        LoadMultiViewImages(missing='skip')(info)


@dataclass(frozen=True)
class Doubled(DrawnFailure):
    camera: str

    def damage_image(self, image, camera):
        return image * 2 if camera == self.camera else image


@dataclass(frozen=True)
class Raised(DrawnFailure):
    def damage_image(self, image, camera):
        return image + 10


def test_failures_damage_each_image_in_their_order(info):
    info['failures'] = [Doubled('CAM_BACK'), Raised()]
    results = LoadMultiViewImages()(info)
    assert [int(image[0, 0, 0]) for image in results['img']] == [11, 14, 13]


def test_info_keeps_its_calibration(info):
    results = LoadMultiViewImages()(info)
    results['cam2img'][0][0][0] = 9
    assert info['images']['CAM_FRONT']['cam2img'][0][0] == 1
    with pytest.raises(ValueError, match='black'):
        LoadMultiViewImages(missing='black')
