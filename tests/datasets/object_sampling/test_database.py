"""Patches beside the points that mmdet3d collects, of the synthetic database."""

import cv2
import numpy as np
import pytest
from mmengine.fileio import load
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import view_points

from projects.cmt_aqr.datasets.object_sampling.database import MIN_SIZE, patch_path


@pytest.fixture(scope='module')
def entries(object_root) -> list[dict]:
    objects = load(object_root / 'nuscenes_dbinfos_train.pkl')
    return [entry for found in objects.values() for entry in found]


def test_the_patches_that_are_named_are_there_and_no_others(object_root, entries):
    assert 0 < sum(len(entry['patches']) == 0 for entry in entries) < len(entries) / 2
    named = {patch_path(entry['path'], camera) for entry in entries for camera in entry['patches']}
    folder = object_root / 'nuscenes_gt_database'
    assert named == {str(path.relative_to(object_root)) for path in folder.glob('*.jpg')}


def test_a_patch_is_what_the_image_shows_within_the_box(object_root, entries):
    """By the devkit's own projection."""
    nusc = NuScenes(version='v1.0-mini', dataroot=str(object_root), verbose=False)
    infos = load(object_root / 'nuscenes_infos_train.pkl')['data_list']
    checked = [entry for entry in entries if entry['image_idx'] in (1, 4) and entry['patches']]
    assert len({entry['name'] for entry in checked}) > 5
    for entry in checked:
        for camera in entry['patches']:
            sample = nusc.get('sample', infos[entry['image_idx']]['token'])
            image_path, boxes, intrinsic = nusc.get_sample_data(sample['data'][camera])
            image = cv2.imread(image_path)
            patch = cv2.imread(str(object_root / patch_path(entry['path'], camera)))
            assert min(patch.shape[:2]) >= MIN_SIZE
            places = [_within(box, intrinsic, image) for box in boxes]
            errors = [_difference(place, patch) for place in places]
            assert min(errors) < 12, (entry['path'], camera)


def _difference(place: np.ndarray, patch: np.ndarray) -> float:
    """Mean over the pixels, which JPEG changes a little; infinite for another size.

    A limit that is almost a whole number may be rounded either way.
    """
    if np.abs(np.subtract(place.shape, patch.shape)).max() > 1:
        return np.inf
    place = cv2.resize(place, patch.shape[1::-1])
    return np.abs(place.astype(int) - patch).mean()


def _within(box, intrinsic: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The part of an image within the upright rectangle round a box; empty if it is behind."""
    corners = box.corners()
    if corners[2].min() <= 0:
        return image[:0]
    pixels = view_points(corners, intrinsic, normalize=True)[:2].T
    size = image.shape[1::-1]
    left, top = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int)
    return image[top:bottom, left:right]
