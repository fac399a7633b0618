"""What a database of the synthetic world's objects holds, read back."""

import cv2
import numpy as np
import pytest
from mmengine.fileio import load
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import view_points

from projects.cmt_aqr.data_preparation.object_database import MIN_PATCH_SIZE
from projects.cmt_aqr.datasets.object_sampling import ObjectDatabase


@pytest.fixture(scope='module')
def database(object_root) -> ObjectDatabase:
    return ObjectDatabase(object_root / 'nuscenes_objects')


def test_most_objects_have_patches(database):
    has_patch = database.index['patch_bytes'].any(axis=1)
    assert 0 < np.count_nonzero(~has_patch) < len(has_patch) / 2
    assert database.cameras[0] == 'CAM_FRONT'
    assert len(database.cameras) == 6


def test_nothing_but_the_objects_is_in_a_shard(database):
    sizes = 20 * database.index['num_points'] + database.index['patch_bytes'].sum(axis=1)
    (shard,) = database.folder.glob('*.bin')
    assert np.array_equal(database.index['start'], np.cumsum(sizes) - sizes)
    assert shard.stat().st_size == sizes.sum()


def test_points_are_in_their_box_and_counted_as_annotated(database, object_root):
    """From sweeps too, so there are at least as many as the keyframe's that are annotated."""
    infos = load(object_root / 'nuscenes_infos_train.pkl')['data_list']
    for row in database.index:
        points = database.read(row).points
        assert len(points) == row['num_points'] > 0
        assert np.abs(points[:, :2] - row['box'][:2]).max() < np.hypot(*row['box'][3:5]) / 2
        places = [i['bbox_3d'][:2] for i in infos[row['sample']]['instances']]
        (instance,) = np.flatnonzero(np.abs(places - row['box'][:2]).max(axis=1) < 1e-5)
        annotated = infos[row['sample']]['instances'][instance]
        assert annotated['bbox_label_3d'] == row['label']
        assert len(points) >= annotated['num_lidar_pts'] - 1  # one on the edge


def test_a_patch_is_what_the_image_shows_within_the_box(database, object_root):
    """By the devkit's own projection."""
    nusc = NuScenes(version='v1.0-mini', dataroot=str(object_root), verbose=False)
    infos = load(object_root / 'nuscenes_infos_train.pkl')['data_list']
    checked = database.index[np.isin(database.index['sample'], (1, 4))]
    assert len(np.unique(checked['label'])) > 5
    for row in checked:
        for camera, patch in database.read(row, database.cameras).patches.items():
            sample = nusc.get('sample', infos[row['sample']]['token'])
            image_path, boxes, intrinsic = nusc.get_sample_data(sample['data'][camera])
            image = cv2.imread(image_path)
            assert min(patch.shape[:2]) >= MIN_PATCH_SIZE
            places = [_within(box, intrinsic, image) for box in boxes]
            errors = [_difference(place, patch) for place in places]
            assert min(errors) < 12, (row['start'], camera)


def _difference(place: np.ndarray, patch: np.ndarray) -> float:
    """Mean over the pixels, which JPEG changes a little; infinite for another size.

    A limit that is almost a whole number may be rounded either way.
    """
    if np.abs(np.subtract(place.shape, patch.shape)).max() > 1:
        return np.inf
    place = cv2.resize(place, patch.shape[1::-1])
    return np.abs(place.astype(int) - patch).mean()


def _within(box, intrinsic: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The part of an image within the upright rectangle around a box; empty if it is behind."""
    corners = box.corners()
    if corners[2].min() <= 0:
        return image[:0]
    pixels = view_points(corners, intrinsic, normalize=True)[:2].T
    size = image.shape[1::-1]
    left, top = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int)
    return image[top:bottom, left:right]
