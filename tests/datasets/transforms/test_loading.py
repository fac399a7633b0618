"""Images of any number of cameras, and what a missing one says."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from mmdet3d.datasets.transforms import LoadMultiViewImageFromFiles

from projects.cmt_aqr.datasets.failures import CameraDrop, DrawnFailure, Misalignment
from projects.cmt_aqr.datasets.transforms import (
    ComputeLidar2Img,
    LoadMultiViewImages,
    ResizeCropFlipImage,
)

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
    assert set(ours) - set(theirs) == {'camera_names', 'loaded_shapes', 'reductions'}
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


def write_jpegs(info, width=640, height=360):
    """Replaces the images by JPEGs of the same scene, smooth and with edges."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([x * 255 // width, y * 255 // height, ((x // 40 + y // 40) % 2) * 200], -1)
    for camera in info['images'].values():
        camera['img_path'] = camera['img_path'].replace('.png', '.jpg')
        camera['cam2img'] = [[500.0, 0, width / 2], [0, 500.0, height / 2], [0, 0, 1]]
        cv2.imwrite(camera['img_path'], image.astype(np.uint8))
    return info


@pytest.mark.parametrize(
    ('final_dim', 'reduction'),
    [((180, 320), 2), ((181, 320), 1), ((100, 320), 2), ((90, 160), 4), ((20, 30), 8)],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_fills_the_final_one(
    info, final_dim, reduction
):
    results = LoadMultiViewImages(final_dim=final_dim)(write_jpegs(info))
    assert results['reductions'] == [reduction] * 3
    assert results['loaded_shapes'] == [(360 // reduction, 640 // reduction)] * 3
    expected = np.array([[500, 0, 320], [0, 500, 180], [0, 0, reduction]]) / reduction
    assert np.array_equal(results['cam2img'][0], expected)
    assert results['ori_cam2img'][0] == info['images']['CAM_FRONT']['cam2img']


def test_images_that_a_failure_damages_are_decoded_whole(info):
    loader = LoadMultiViewImages(final_dim=(180, 320))
    write_jpegs(info)
    assert loader(CameraDrop()(dict(info)))['reductions'] == [1] * 3
    misaligned = (Misalignment(severity=3, seed=seed)(dict(info)) for seed in range(20))
    misaligned = next(results for results in misaligned if results['failures'])
    assert loader(misaligned)['reductions'] == [2] * 3


def test_other_formats_are_decoded_whole(info):
    assert LoadMultiViewImages(final_dim=(2, 3))(info)['reductions'] == [1] * 3


def test_augmented_images_and_calibration_are_those_of_whole_images(real_frame):
    """On nuScenes' images, within one grey level on average."""
    calibration = dict(cam2img=(1000 * np.eye(3)).tolist(), lidar2cam=np.eye(4).tolist())
    images = {
        path.name: dict(img_path=str(path), **calibration) for path in real_frame.glob('*.jpg')
    }
    augment = ResizeCropFlipImage(final_dim=(320, 800), zoom_lim=(0.94, 1.25))
    for seed in range(3):
        found = []
        for final_dim in (None, (320, 800)):
            results = dict(token='a', images=images)
            results = ComputeLidar2Img()(LoadMultiViewImages(final_dim=final_dim)(results))
            np.random.seed(seed)
            found.append(augment(results))
        whole, small = found
        assert small['reductions'] == [2] * 6
        np.testing.assert_allclose(small['lidar2img'], whole['lidar2img'], rtol=1e-9, atol=1e-6)
        apart = np.abs(np.stack(small['img']).astype(int) - np.stack(whole['img'])).mean()
        assert 0 < apart < 1


def test_images_decoded_too_small_are_refused(info):
    results = ComputeLidar2Img()(LoadMultiViewImages(final_dim=(90, 160))(write_jpegs(info)))
    with pytest.raises(ValueError, match=r'decoded at 160 x 90, less than final_dim=\(180, 320\)'):
        ResizeCropFlipImage(final_dim=(180, 320), training=False)(results)
