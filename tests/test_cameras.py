"""Cameras of a batch: padding, inversion, and metas that do not fit."""

import numpy as np
import pytest
import torch

from projects.cmt_aqr.cameras import batch_cameras


def meta(views, shape=(64, 96)):
    matrices = np.tile(np.eye(4), (views, 1, 1))
    matrices[:, :3, :3] = np.diag([500.0, 500, 1]) + np.eye(3, k=1)
    matrices[:, :3, 3] = [1, 2, 3]
    return {'lidar2img': matrices, 'pad_shape': shape}


def test_a_sample_with_fewer_cameras_is_padded():
    cameras = batch_cameras([meta(3), meta(1)], like=torch.zeros(2, 3, 1))
    assert cameras.camera_mask.tolist() == [[True, True, True], [True, False, False]]
    assert not cameras.complete
    assert cameras.image_shape == (64, 96)
    torch.testing.assert_close(cameras.lidar2img[1, 1:], torch.eye(4).expand(2, 4, 4))


def test_the_inverse_is_taken_in_double_precision():
    cameras = batch_cameras([meta(2)], like=torch.zeros(1, 2, 1))
    assert cameras.complete
    expected = np.linalg.inv(meta(2)['lidar2img']).astype(np.float32)
    np.testing.assert_array_equal(cameras.img2lidar[0].numpy(), expected)


def test_more_matrices_than_images():
    with pytest.raises(ValueError, match='sample 1 has 3 lidar2img matrices for 2 images'):
        batch_cameras([meta(2), meta(3)], like=torch.zeros(2, 2, 1))


def test_images_padded_to_different_shapes():
    with pytest.raises(ValueError, match='different shapes'):
        batch_cameras([meta(1), meta(1, (32, 96))], like=torch.zeros(2, 1, 1))
