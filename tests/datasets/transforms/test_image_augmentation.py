"""Resized, cropped, mirrored and rotated images, and the matrices that go with them."""

import copy

import numpy as np
import pytest

from projects.cmt_aqr.datasets.transforms import ResizeCropFlipImage

TRAINING = dict(
    final_dim=(40, 90), zoom_lim=(0.5, 0.9), bot_pct_lim=(0.0, 0.2), rot_lim=(-15.0, 15.0)
)


def test_projection_follows_the_image_matrix(sample):
    before = copy.deepcopy(sample)
    after = ResizeCropFlipImage(**TRAINING)(sample)
    corners = before['gt_bboxes_3d'].corners.double().numpy().reshape(-1, 3)
    corners = np.c_[corners, np.ones(len(corners))]
    for view in range(2):
        was = before['lidar2img'][view] @ corners.T
        now = after['lidar2img'][view] @ corners.T
        pixels = np.stack([was[0] / was[2], was[1] / was[2], np.ones(len(corners))])
        expected = after['img_aug_matrix'][view] @ pixels
        np.testing.assert_allclose(now[2], was[2], atol=1e-9)
        np.testing.assert_allclose(now[:2] / now[2], expected[:2], atol=1e-6)
    np.testing.assert_allclose(after['lidar2img'], after['cam2img'] @ after['lidar2cam'])


def dot_image(u: float, v: float, size=(180, 320)) -> np.ndarray:
    """A soft white dot whose centre of mass is at (u, v); pixel i covers [i, i + 1)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    weight = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 3.0**2))
    return np.repeat((255 * weight).round().astype(np.uint8)[..., None], 3, axis=-1)


def dot_position(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(
    'limits',
    [
        dict(zoom_lim=(0.43, 1.17), rand_flip=False),
        dict(zoom_lim=(1.07, 1.07), rand_flip=True),
        dict(zoom_lim=(1.07, 1.07), rand_flip=False, rot_lim=(-20, 20)),
        dict(zoom_lim=(0.43, 1.17), rand_flip=True, rot_lim=(-20, 20), bot_pct_lim=(0, 0.2)),
    ],
    ids=['resize', 'flip', 'rotation', 'all'],
)
def test_a_dot_stays_under_its_projection(limits, seed):
    np.random.seed(seed)
    pixel = np.array([170.3, 100.8])
    results = dict(img=[dot_image(*pixel)], lidar2img=np.eye(4)[None], cam2img=np.eye(4)[None])
    results = ResizeCropFlipImage(final_dim=(150, 300), **limits)(results)
    projected = results['lidar2img'][0] @ (*pixel, 1, 1)
    assert results['img'][0].shape == (150, 300, 3)
    assert (np.abs(projected[:2] - (150, 75)) < (140, 65)).all()  # the whole dot is in the picture
    np.testing.assert_allclose(dot_position(results['img'][0]), projected[:2], atol=0.1)


def test_without_training_fills_the_width_and_keeps_the_bottom():
    image = np.arange(90 * 160, dtype=np.float32).reshape(90, 160, 1).repeat(3, axis=-1)
    results = dict(img=[image], lidar2img=np.eye(4)[None], cam2img=np.eye(4)[None])
    out = ResizeCropFlipImage(final_dim=(40, 160), training=False)(results)
    assert np.array_equal(out['img'][0], image[50:])
    assert out['img_aug_matrix'][0].tolist() == [[1, 0, 0], [0, 1, -50], [0, 0, 1]]
    assert out['img_shape'] == out['pad_shape'] == (40, 160)


def test_without_training_is_deterministic_and_centred():
    image = np.zeros((100, 400, 3), np.uint8)
    results = dict(img=[image], lidar2img=np.eye(4)[None], cam2img=np.eye(4)[None])
    out = ResizeCropFlipImage(final_dim=(50, 100), training=False, rot_lim=(5, 5))(results)
    assert out['img_aug_matrix'][0].tolist() == [[0.5, 0, -50], [0, 0.5, 0], [0, 0, 1]]


def test_nuscenes_sizes():
    """The released configs' sizes: 1600 x 900 to 800 x 320 is half the size, 130 rows cut."""
    results = dict(
        img=[np.zeros((900, 1600, 3), np.uint8)],
        lidar2img=np.eye(4)[None],
        cam2img=np.eye(4)[None],
    )
    out = ResizeCropFlipImage(final_dim=(320, 800), training=False)(results)
    assert out['img_aug_matrix'][0].tolist() == [[0.5, 0, 0], [0, 0.5, -130], [0, 0, 1]]


def test_what_the_resized_image_does_not_reach_is_black():
    image = np.full((100, 100, 3), 200, np.uint8)
    results = dict(img=[image], lidar2img=np.eye(4)[None], cam2img=np.eye(4)[None])
    out = ResizeCropFlipImage(final_dim=(80, 90), zoom_lim=(0.5 / 0.9, 0.5 / 0.9), rand_flip=False)(
        results
    )
    assert (out['img'][0][30:, :50] == 200).all()
    assert out['img'][0][:30].max() == out['img'][0][:, 50:].max() == 0


def test_views_share_a_draw():
    results = dict(
        img=[np.zeros((90, 160, 3), np.uint8)] * 2,
        lidar2img=np.tile(np.eye(4), (2, 1, 1)),
        cam2img=np.tile(np.eye(4), (2, 1, 1)),
    )
    first, second = ResizeCropFlipImage(**TRAINING)(results)['img_aug_matrix']
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ('training', 'expected'), [(False, [1, 1, 1, 1]), (True, [0.8, 0.8, 0.8, 0.69])]
)
def test_cameras_of_any_resolution_fill_the_same_part_of_the_final_size(training, expected):
    sizes = [(90, 160), (45, 80), (360, 640), (60, 160)]
    results = dict(
        img=[np.full((*size, 3), 255, np.uint8) for size in sizes],
        lidar2img=np.tile(np.eye(4), (4, 1, 1)),
        cam2img=np.tile(np.eye(4), (4, 1, 1)),
    )
    fit = ResizeCropFlipImage(final_dim=(32, 80), zoom_lim=(0.8, 0.8), training=training)
    covered = [(image[..., 0] > 0).mean() for image in fit(results)['img']]
    assert covered == pytest.approx(expected, abs=0.01)


def test_calibration_of_the_caller_is_not_changed(sample):
    kept = sample['lidar2img']
    before = kept.copy()
    ResizeCropFlipImage(**TRAINING)(sample)
    assert np.array_equal(kept, before)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(final_dim=(0, 5)), 'final_dim'),
        (dict(final_dim=(5,)), 'final_dim'),
        (dict(zoom_lim=None), 'zoom_lim'),
        (dict(zoom_lim=(0.5, 0.4)), 'zoom_lim'),
        (dict(bot_pct_lim=(0.0, 1.0)), 'bot_pct_lim'),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ResizeCropFlipImage(**{**TRAINING, **change})
