"""Maps of health lie where the model sees what was damaged."""

from dataclasses import dataclass

import numpy as np
import pytest

from projects.cmt_aqr.datasets.failures import DrawnFailure, LimitedFieldOfView, PackHealth
from projects.cmt_aqr.datasets.transforms import (
    GlobalRotScaleTransAll,
    ModalMask3D,
    RandomFlip3DAll,
    ResizeCropFlipImage,
)

RANGE = [-20.0, -10.0, -3.0, 20.0, 10.0, 3.0]


@dataclass(frozen=True)
class Corner(DrawnFailure):
    """Lost: LiDAR where x > 10 and y > 5, the upper left quarter of the first camera."""

    def lidar_health(self, xy):
        return 1 - ((xy[..., 0] > 10) & (xy[..., 1] > 5)).astype(np.float32)

    def camera_health(self, camera, shape):
        health = np.ones(shape, np.float32)
        if camera == 'A':
            health[: shape[0] // 2, : shape[1] // 2] = 0
        return health


@dataclass(frozen=True)
class Half(DrawnFailure):
    """Half of the LiDAR is lost everywhere."""

    def lidar_health(self, xy):
        return np.full(xy.shape[:-1], 0.5, np.float32)


@dataclass(frozen=True)
class Gone(DrawnFailure):
    """No camera is left."""

    def camera_health(self, camera, shape):
        return np.zeros(shape, np.float32)


@pytest.fixture
def loaded(sample) -> dict:
    """The sample of two cameras, as this project's loaders leave it."""
    shapes = [image.shape[:2] for image in sample['img']]
    sample.update(camera_names=['A', 'B'], loaded_shapes=shapes, img_shape=shapes[0])
    return sample


def pack(results: dict, **options) -> dict:
    options = dict(dict(point_cloud_range=RANGE, cell_size=5, patch_size=10), **options)
    return PackHealth(**options)(results)


def test_rows_are_y_and_columns_x(loaded):
    results = pack(dict(loaded, failures=[Corner()]))
    lidar = np.ones((4, 8))
    lidar[3, 6:] = 0
    assert results['health']['lidar'].tolist() == lidar.tolist()
    assert results['health']['lidar'].dtype == results['health']['camera'].dtype == np.float32
    assert results['sensor_health'] == dict(lidar=30 / 32, A=pytest.approx(0.75, abs=0.05), B=1.0)


def test_cells_may_be_damaged_in_part_and_reach_over_the_range(loaded):
    lidar = pack(dict(loaded, failures=[Corner()]), cell_size=8)['health']['lidar']
    # The fourth column goes from 4 to 12 m, the third row from 6 to 14 m.
    assert lidar.shape == (3, 5)
    expected = np.ones((3, 5))
    expected[2, 4], expected[2, 3] = 0, 0.75  # of 5, 7, 9 and 11 m along x one is beyond 10 m
    assert lidar.tolist() == expected.tolist()


def test_without_failures_all_is_healthy(loaded):
    for results in (pack(loaded), pack(dict(loaded, failures=[]))):
        assert results['health']['lidar'].shape == (4, 8)
        assert results['health']['camera'].shape == (2, 9, 16)
        assert all(map(np.all, (m == 1 for m in results['health'].values())))
        assert results['sensor_health'] == dict(lidar=1.0, A=1.0, B=1.0)


def test_shares_of_several_failures_multiply(loaded):
    lidar = pack(dict(loaded, failures=[Corner(), Half(), Half()]))['health']['lidar']
    assert np.unique(lidar).tolist() == [0, 0.25]
    assert (lidar == 0).sum() == 2


@pytest.mark.parametrize('seed', range(3))
def test_the_map_moves_with_the_scene(loaded, seed):
    """A cell is as healthy as the place that the points in it came from."""
    np.random.seed(seed)
    ranges = dict(rot_range=[-0.8, 0.8], scale_ratio_range=[0.8, 1.2], translation_std=[2.0] * 3)
    results = RandomFlip3DAll()(GlobalRotScaleTransAll(**ranges)(loaded))
    wide = dict(point_cloud_range=[-30, -30, -3, 30, 30, 3], cell_size=0.5)
    lidar = pack(dict(results, failures=[Corner()]), **wide)['health']['lidar']
    x, y = np.meshgrid(np.arange(8.0, 17, 0.5), np.arange(3.0, 8, 0.5))
    before = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], axis=-1).reshape(-1, 4)
    after = (before @ results['lidar_aug_matrix'].T)[:, :2]
    column, row = np.floor((after + 30) / 0.5).astype(int).T
    # Away from the rim of the damage by more than a cell.
    clear = (np.abs(before[:, 0] - 10) > 1) & (np.abs(before[:, 1] - 5) > 1)
    expected = ~((before[:, 0] > 10) & (before[:, 1] > 5))
    assert {*expected[clear]} == {True, False}
    assert np.array_equal(lidar[row[clear], column[clear]] > 0.5, expected[clear])


def test_the_patches_move_with_the_images(loaded):
    np.random.seed(0)
    augment = ResizeCropFlipImage(
        final_dim=(60, 100), resize_lim=(0.5, 0.8), rot_lim=(-10, 10), per_view=True
    )
    # The images themselves show what is lost.
    for i, image in enumerate(loaded['img']):
        image[:] = 255
        if i == 0:
            image[: image.shape[0] // 2, : image.shape[1] // 2] = 128
    results = augment(loaded)
    camera = pack(dict(results, failures=[Corner()]), patch_size=2)['health']['camera']
    assert camera.shape == (2, 30, 50)
    assert camera[1].min() == 1
    # Where four pixels of a patch show the same, it is lost exactly if they show the lost part.
    shown = results['img'][0][..., 0].reshape(30, 2, 50, 2)
    even = np.ptp(shown, axis=(1, 3)) == 0
    lost, kept = (even & (shown[:, 0, :, 0] == value) for value in (128, 255))
    assert min(lost.sum(), kept.sum()) > 30
    assert (camera[0][lost] < 0.5).all()
    assert (camera[0][kept] > 0.5).all()


@pytest.mark.parametrize(('lost', 'left'), [('lidar', 'camera'), ('camera', 'lidar')])
def test_a_dropped_sensor_is_not_healthy(loaded, lost, left):
    health = pack(ModalMask3D(drop=lost)(loaded))['health']
    assert not health[lost][0].any()
    assert health[left].all()


def test_no_cameras():
    results = dict(token='a', failures=[LimitedFieldOfView().draw({}, None)])
    health = pack(results)['health']
    assert health['camera'].shape[0] == 0
    assert health['lidar'].mean() == 0.5


def test_images_of_another_loader_are_refused(sample):
    with pytest.raises(KeyError, match='LoadMultiViewImages of this project'):
        pack(sample)


@pytest.mark.parametrize(
    'options', [dict(cell_size=0), dict(patch_size=0), dict(samples=0)], ids=lambda o: next(iter(o))
)
def test_sizes_that_make_no_sense(options):
    with pytest.raises(ValueError, match=rf'PackHealth: .*{next(iter(options))}=0'):
        PackHealth(point_cloud_range=RANGE, **options)


def test_patches_that_reach_over_the_image_are_as_healthy_as_what_is_in_them(loaded):
    """The image of 90 x 160 has less than four patches of 25 pixels along its height."""
    results = pack(ModalMask3D(drop='camera')(loaded), patch_size=25)
    assert results['health']['camera'].shape == (2, 4, 7)
    assert not results['health']['camera'][0].any()
    assert results['sensor_health']['A'] == 0


def test_what_does_not_come_from_the_image_is_healthy_and_counts_for_nothing(loaded):
    """Shrunk to 54 x 96 pixels, the rest of 80 x 160 is black in any case."""
    matrices = np.array([np.diag([0.6, 0.6, 1])] * 2)
    loaded.update(img_shape=(80, 160), img_aug_matrix=matrices, failures=[Gone()])
    results = pack(loaded, patch_size=40)
    assert results['health']['camera'][0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert results['sensor_health']['A'] == 0
