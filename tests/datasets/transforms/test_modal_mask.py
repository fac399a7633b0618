"""Whole sensors taken away, at random and always."""

import copy

import numpy as np
import pytest

from projects.cmt_aqr.datasets.transforms import ModalMask3D


def test_drop_lidar(sample):
    before = copy.deepcopy(sample)
    after = ModalMask3D(drop='lidar')(sample)
    assert after['points'].tensor.shape == (0, 5)
    assert all(map(np.array_equal, after['img'], before['img']))
    assert after['dropped_modality'] == 'lidar'


def test_drop_lidar_as_published(sample):
    after = ModalMask3D(drop='lidar', dropped_lidar='zeros')(sample)
    assert after['points'].tensor.shape == (50, 5)
    assert after['points'].tensor.eq(0).all()


def test_drop_camera(sample):
    before = copy.deepcopy(sample)
    after = ModalMask3D(drop='camera')(sample)
    for image, original in zip(after['img'], before['img'], strict=True):
        assert image.shape == original.shape
        assert image.dtype == original.dtype
        assert not image.any()
    assert np.array_equal(after['lidar2img'], before['lidar2img'])
    assert after['points'].tensor.equal(before['points'].tensor)


def test_shares_of_the_random_form(sample):
    mask = ModalMask3D(lidar_drop_prob=0.4, camera_drop_prob=0.2)
    drawn = [mask(dict(sample))['dropped_modality'] for _ in range(2000)]
    assert drawn.count('lidar') / 2000 == pytest.approx(0.4, abs=0.04)
    assert drawn.count('camera') / 2000 == pytest.approx(0.2, abs=0.04)
    assert drawn.count(None) / 2000 == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize(
    ('probabilities', 'expected'), [((0, 0), None), ((1, 0), 'lidar'), ((0, 1), 'camera')]
)
def test_certain_probabilities(sample, probabilities, expected):
    lidar, camera = probabilities
    mask = ModalMask3D(lidar_drop_prob=lidar, camera_drop_prob=camera)
    assert {mask(dict(sample))['dropped_modality'] for _ in range(50)} == {expected}


def test_the_file_is_read_again_for_the_next_epoch(sample):
    """What is dropped are copies: the loaded arrays stay as they are."""
    points, images = sample['points'], sample['img']
    for drop in ('lidar', 'camera'):
        ModalMask3D(drop=drop, dropped_lidar='zeros')(dict(sample))
    assert points.tensor.abs().sum() > 0
    assert images[0].any()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(lidar_drop_prob=-0.1), 'lidar_drop_prob'),
        (dict(lidar_drop_prob=0.6, camera_drop_prob=0.5), 'together at most 1'),
        (dict(drop='image'), 'image'),
        (dict(dropped_lidar='none'), 'none'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModalMask3D(**arguments)
