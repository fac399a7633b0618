"""Lost, covered, dark and blurred images, and the health that goes with them."""

import pickle

import numpy as np
import pytest
from mmdet3d.registry import TRANSFORMS

from projects.cmt_aqr.datasets.failures.camera import (
    CameraDrop,
    Darkness,
    DrawnCameraDrop,
    DrawnMotionBlur,
    DrawnOcclusion,
    MotionBlur,
    Occlusion,
    RandomCameraLoss,
)

CAMERAS = ('CAM_FRONT', 'CAM_BACK', 'CAM_LEFT')
SHAPE = (6, 10)


def sample(token: str = 'abc', draw: int = 0) -> dict:
    return dict(token=token, draw=draw, images={name: {} for name in CAMERAS})


def drawn_by(failure, token: str = 'abc', draw: int = 0):
    failures = failure(sample(token, draw))['failures']
    assert len(failures) <= 1
    return failures[0] if failures else None


def grey_image(value: int = 100, shape: tuple[int, int] = (90, 160)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def noisy_image(shape: tuple[int, int] = (90, 160)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_names_are_registered():
    for name in ('CameraDrop', 'RandomCameraLoss', 'Occlusion', 'Darkness', 'MotionBlur'):
        assert TRANSFORMS.build(dict(type=name, severity=1, seed=3)).seed == 3


@pytest.mark.parametrize('kind', [Occlusion, Darkness, MotionBlur])
class TestEveryDamage:
    def test_image_and_health_are_well_formed(self, kind):
        drawn = drawn_by(kind(severity=3))
        for shape in [(90, 160), (33, 47), (5, 7)]:
            image = noisy_image(shape)
            before = image.copy()
            damaged = drawn.damage_image(image, 'CAM_BACK')
            assert damaged.shape == image.shape
            assert damaged.dtype == np.uint8
            assert not np.array_equal(damaged, image) or min(shape) < 10
            np.testing.assert_array_equal(image, before)
        for patches in [SHAPE, (80, 200), (1, 1)]:
            health = drawn.camera_health('CAM_BACK', patches)
            assert health.shape == patches
            assert health.dtype == np.float32
            assert health.min() >= 0
            assert health.mean() < 1
            assert health.max() <= 1

    def test_same_draw_same_damage_in_any_process(self, kind):
        image = noisy_image()
        first, again = (drawn_by(kind(severity=2, seed=5)) for _ in range(2))
        unpickled = pickle.loads(pickle.dumps(first))
        expected = first.damage_image(image, 'CAM_BACK')
        for drawn in (again, unpickled):
            assert drawn.key == first.key
            np.testing.assert_array_equal(drawn.damage_image(image, 'CAM_BACK'), expected)

    @pytest.mark.parametrize('other', ['token', 'draw', 'seed', 'camera'])
    def test_other_draws_damage_otherwise(self, kind, other):
        image, camera = noisy_image(), 'CAM_BACK'
        expected = drawn_by(kind(severity=2)).damage_image(image, camera)
        drawn = {
            'token': lambda: drawn_by(kind(severity=2), token='abd'),
            'draw': lambda: drawn_by(kind(severity=2), draw=1),
            'seed': lambda: drawn_by(kind(severity=2, seed=1)),
            'camera': lambda: drawn_by(kind(severity=2)),
        }[other]()
        camera = 'CAM_LEFT' if other == 'camera' else camera
        assert not np.array_equal(drawn.damage_image(image, camera), expected)

    def test_severity_takes_health(self, kind):
        health = [
            drawn_by(kind(severity=severity)).camera_health('CAM_BACK', SHAPE).mean()
            for severity in (1, 2, 3)
        ]
        assert health[0] > health[1] > health[2]

    def test_lidar_stays_whole(self, kind):
        drawn = drawn_by(kind(severity=3))
        points = np.ones((4, 5), np.float32)
        assert drawn.damage_points(points, np.eye(4), 0.0) is points
        assert drawn.lidar_health(np.zeros((2, 3, 2))).tolist() == [[1.0] * 3] * 2


class TestCameraDrop:
    def test_all_by_default(self):
        drawn = drawn_by(CameraDrop())
        assert drawn == DrawnCameraDrop(('CAM_BACK', 'CAM_FRONT', 'CAM_LEFT'))
        for camera in CAMERAS:
            assert not drawn.damage_image(noisy_image(), camera).any()
            assert not drawn.camera_health(camera, SHAPE).any()

    def test_named_cameras_only(self):
        drawn = drawn_by(CameraDrop(cameras=['CAM_LEFT']))
        image = noisy_image()
        assert drawn.damage_image(image, 'CAM_BACK') is image
        assert drawn.camera_health('CAM_BACK', SHAPE).min() == 1
        assert not drawn.damage_image(image, 'CAM_LEFT').any()
        assert image.any()
        assert drawn.camera_health('CAM_LEFT', SHAPE).max() == 0

    def test_order_of_names_does_not_matter_to_the_key(self):
        first = drawn_by(CameraDrop(cameras=['CAM_LEFT', 'CAM_BACK']))
        assert first.key == drawn_by(CameraDrop(cameras=('CAM_BACK', 'CAM_LEFT'))).key

    def test_unknown_camera(self):
        with pytest.raises(ValueError, match=r"sample abc has no camera \['CAM_TOP'\].*CAM_FRONT"):
            drawn_by(CameraDrop(cameras=['CAM_TOP']))

    @pytest.mark.parametrize('cameras', [[], 'CAM_LEFT'])
    def test_not_a_list_of_names(self, cameras):
        with pytest.raises(ValueError, match='must be a list of names'):
            CameraDrop(cameras=cameras)

    def test_one_severity(self):
        with pytest.raises(
            ValueError, match='severity is 2; it must be a whole number from 1 to 1'
        ):
            CameraDrop(severity=2)


class TestRandomCameraLoss:
    @pytest.mark.parametrize(('severity', 'probability'), [(1, 0.2), (2, 0.4), (3, 0.6)])
    def test_share_of_images(self, severity, probability):
        failure = RandomCameraLoss(severity=severity)
        draws = [drawn_by(failure, token=str(i)) for i in range(400)]
        lost = sum(len(drawn.cameras) for drawn in draws if drawn is not None)
        assert lost / (400 * len(CAMERAS)) == pytest.approx(probability, abs=0.05)
        assert any(drawn is None for drawn in draws)
        assert any(drawn and 0 < len(drawn.cameras) < len(CAMERAS) for drawn in draws)

    def test_severities_are_nested(self):
        for token in map(str, range(20)):
            lost = [
                set(drawn.cameras) if drawn else set()
                for drawn in (
                    drawn_by(RandomCameraLoss(severity=s), token=token) for s in (1, 2, 3)
                )
            ]
            assert lost[0] <= lost[1] <= lost[2]

    def test_order_of_cameras_does_not_matter(self):
        for token in map(str, range(10)):
            results = sample(token)
            results['images'] = dict(reversed(results['images'].items()))
            failures = RandomCameraLoss(severity=3)(results)['failures']
            assert (failures[0] if failures else None) == drawn_by(
                RandomCameraLoss(severity=3), token=token
            )


class TestOcclusion:
    @pytest.mark.parametrize(('severity', 'share'), [(1, 0.2), (2, 0.35), (3, 0.5)])
    def test_covered_share(self, severity, share):
        masks = [drawn_by(Occlusion(severity=severity), str(i)).mask('CAM_BACK') for i in range(5)]
        for mask in masks:
            assert (mask > 0.5).mean() == pytest.approx(share, abs=0.01)
            assert mask.mean() == pytest.approx(share, abs=0.05)
            assert mask.min() == 0
            assert mask.max() == 1

    def test_edges_are_soft(self):
        mask = DrawnOcclusion(0.35, 1).mask('CAM_BACK')
        assert ((mask > 0) & (mask < 1)).mean() > 0.02
        assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.4

    def test_mud_where_covered_and_image_where_not(self):
        drawn, image = DrawnOcclusion(0.35, 1), grey_image(200)
        damaged = drawn.damage_image(image, 'CAM_BACK')
        mask = drawn.mask('CAM_BACK')
        assert np.abs(damaged[mask == 1].astype(int) - (38, 48, 56)).max() == 0
        assert np.abs(damaged[mask == 0].astype(int) - 200).max() == 0

    def test_health_is_what_shows_of_each_patch(self):
        drawn = DrawnOcclusion(0.35, 1)
        health = drawn.camera_health('CAM_BACK', (9, 16))
        shows = 1 - drawn.mask('CAM_BACK').reshape(9, 10, 16, 10).mean(axis=(1, 3))
        np.testing.assert_allclose(health, shows, atol=1e-5)
        assert health.min() == 0
        assert health.max() == 1

    def test_severities_are_nested(self):
        milder, worse = (drawn_by(Occlusion(severity=s)).mask('CAM_BACK') for s in (1, 3))
        assert (milder <= worse).all()


class TestDarkness:
    @pytest.mark.parametrize(
        ('severity', 'brightness', 'noise'), [(1, 0.6, 0.036), (2, 0.4, 0.045), (3, 0.3, 0.061)]
    )
    def test_mean_and_noise(self, severity, brightness, noise):
        drawn = drawn_by(Darkness(severity=severity))
        damaged = drawn.damage_image(grey_image(200), 'CAM_BACK').astype(float)
        assert damaged.mean() == pytest.approx(200 * brightness, abs=0.5)
        assert damaged.std() == pytest.approx(255 * noise, rel=0.03)
        assert (
            drawn.camera_health('CAM_BACK', SHAPE).tolist() == [[np.float32(brightness)] * 10] * 6
        )

    def test_noise_is_cut_off_at_black(self):
        damaged = drawn_by(Darkness(severity=3)).damage_image(grey_image(0), 'CAM_BACK')
        assert (damaged == 0).mean() > 0.45
        assert damaged.max() < 100

    def test_noise_of_channels_and_cameras_differs(self):
        drawn = drawn_by(Darkness())
        damaged = drawn.damage_image(grey_image(), 'CAM_BACK').astype(float)
        other = drawn.damage_image(grey_image(), 'CAM_LEFT').astype(float)
        values = np.stack([damaged[..., 0], damaged[..., 1], other[..., 0]]).reshape(3, -1)
        assert np.abs(np.corrcoef(values) - np.eye(3)).max() < 0.05


class TestMotionBlur:
    def test_even_surface_stays(self):
        damaged = drawn_by(MotionBlur(severity=3)).damage_image(grey_image(), 'CAM_BACK')
        assert np.abs(damaged.astype(int) - 100).max() <= 1

    def test_trail_of_one_pixel(self):
        """Half a normal distribution of 10 pixels, 30 pixels long, within ±45° of the rows."""
        image = np.zeros((200, 1600, 3), np.uint8)
        image[100, 800] = 255
        # One pixel is spread too thin for 8 bits: a block of them is blurred alike.
        image[98:103, 798:803] = 255
        for seed in range(5):
            damaged = DrawnMotionBlur(0.10, seed).damage_image(image, 'CAM_BACK').astype(float)
            rows, columns = np.nonzero(damaged[..., 0])
            weights = damaged[rows, columns, 0]
            away = np.array([rows @ weights, columns @ weights]) / weights.sum() - (100, 800)
            assert np.hypot(*away) == pytest.approx(7.88, abs=0.4)
            assert abs(away[0]) <= abs(away[1]) + 0.3
            assert np.hypot(rows - 100, columns - 800).max() <= 30 + 4

    def test_trail_grows_with_the_image(self):
        lengths = []
        for width in (400, 1600):
            image = np.zeros((width // 8, width, 3), np.uint8)
            image[:, width // 2 :] = 255
            damaged = DrawnMotionBlur(0.13, 4).damage_image(image, 'CAM_BACK')
            lengths.append(((damaged > 10) & (damaged < 245)).any(axis=(0, 2)).sum())
        assert lengths[1] / lengths[0] == pytest.approx(4, rel=0.25)

    @pytest.mark.parametrize(('severity', 'share'), [(1, 0.85), (2, 0.66), (3, 0.54)])
    def test_health_is_the_contrast_of_stripes(self, severity, share):
        """What the docstring's table says, and what is left of stripes 40 pixels apart."""
        drawn = drawn_by(MotionBlur(severity=severity))
        health = drawn.camera_health('CAM_BACK', SHAPE)
        np.testing.assert_allclose(health, share, atol=0.005)
        # Stripes across a trail at angle a are seen 1 / cos(a) times as far apart in a row.
        angle = _angle(drawn)
        rows, columns = np.mgrid[:400, :1600]
        along = columns * np.cos(angle) + rows * np.sin(angle)
        stripes = 127.5 + 100 * np.cos(2 * np.pi * along / 40)
        image = np.repeat(np.rint(stripes).astype(np.uint8)[..., None], 3, axis=-1)
        damaged = drawn.damage_image(image, 'CAM_BACK').astype(float)[50:-50, 50:-50]
        assert np.ptp(damaged) / 200 == pytest.approx(share, abs=0.03)


def _angle(drawn: DrawnMotionBlur) -> float:
    """Of the trail, from what it does to a bright spot."""
    image = np.zeros((401, 1600, 3), np.uint8)
    image[195:206, 795:806] = 255
    damaged = drawn.damage_image(image, 'CAM_BACK').astype(float)[..., 0]
    rows, columns = np.mgrid[:401, :1600]
    down = (damaged * (rows - 200)).sum()
    right = (damaged * (columns - 800)).sum()
    return np.arctan2(down, right)
