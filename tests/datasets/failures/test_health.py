"""Maps of health lie where the model sees what was damaged."""

from dataclasses import dataclass

import numpy as np
import pytest

from projects.cmt_aqr.datasets.failures import (
    DrawnFailure,
    LimitedFieldOfView,
    PackHealth,
    health_maps,
)
from projects.cmt_aqr.datasets.transforms import (
    GlobalRotScaleTransAll,
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


def health_of(results: dict, cell_size: float = 5, patch_size: int = 10) -> dict:
    cells = dict(cell_size=[cell_size] * 2, patch_size=patch_size)
    return health_maps(results, **{'point_cloud_range': RANGE, **cells})


def test_rows_are_y_and_columns_x(loaded):
    health = health_of(dict(loaded, failures=[Corner()]))
    lidar = np.ones((4, 8))
    lidar[3, 6:] = 0
    assert health['lidar'].tolist() == lidar.tolist()
    assert health['lidar'].dtype == health['camera'].dtype == np.float32
    assert health['camera'][0].mean() == pytest.approx(0.75, abs=0.05)
    assert health['camera'][1].min() == 1


def test_cells_may_be_damaged_in_part_and_reach_over_the_range(loaded):
    lidar = health_of(dict(loaded, failures=[Corner()]), cell_size=8)['lidar']
    # The fourth column goes from 4 to 12 m, the third row from 6 to 14 m.
    assert lidar.shape == (3, 5)
    expected = np.ones((3, 5))
    expected[2, 4], expected[2, 3] = 0, 0.75  # of 5, 7, 9 and 11 m along x one is beyond 10 m
    assert lidar.tolist() == expected.tolist()


def test_without_failures_all_is_healthy(loaded):
    for health in (health_of(loaded), health_of(dict(loaded, failures=[]))):
        assert health['lidar'].shape == (4, 8)
        assert health['camera'].shape == (2, 9, 16)
        assert all(np.all(maps == 1) for maps in health.values())


def test_shares_of_several_failures_multiply(loaded):
    lidar = health_of(dict(loaded, failures=[Corner(), Half(), Half()]))['lidar']
    assert np.unique(lidar).tolist() == [0, 0.25]
    assert (lidar == 0).sum() == 2


@pytest.mark.parametrize('seed', range(3))
def test_the_map_moves_with_the_scene(loaded, seed):
    """A cell is as healthy as the place that the points in it came from."""
    np.random.seed(seed)
    ranges = dict(rot_range=[-0.8, 0.8], scale_ratio_range=[0.8, 1.2], translation_std=[2.0] * 3)
    results = RandomFlip3DAll()(GlobalRotScaleTransAll(**ranges)(loaded))
    wide = [-30, -30, -3, 30, 30, 3]
    results['failures'] = [Corner()]
    lidar = health_maps(results, point_cloud_range=wide, cell_size=[0.5] * 2, patch_size=10)[
        'lidar'
    ]
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
    augment = ResizeCropFlipImage(final_dim=(60, 100), zoom_lim=(0.5, 0.8), rot_lim=(-10, 10))
    # The images themselves show what is lost.
    for i, image in enumerate(loaded['img']):
        image[:] = 255
        if i == 0:
            image[: image.shape[0] // 2, : image.shape[1] // 2] = 128
    results = augment(loaded)
    camera = health_of(dict(results, failures=[Corner()]), patch_size=2)['camera']
    assert camera.shape == (2, 30, 50)
    assert camera[1].min() == 1
    # Where four pixels of a patch show the same, it is lost exactly if they show the lost part.
    shown = results['img'][0][..., 0].reshape(30, 2, 50, 2)
    even = np.ptp(shown, axis=(1, 3)) == 0
    lost, kept = (even & (shown[:, 0, :, 0] == value) for value in (128, 255))
    assert min(lost.sum(), kept.sum()) > 30
    assert (camera[0][lost] < 0.5).all()
    assert (camera[0][kept] > 0.5).all()


def test_no_cameras():
    health = health_of(dict(token='a', failures=[LimitedFieldOfView().draw({}, None)]))
    assert health['camera'].shape[0] == 0
    assert health['lidar'].mean() == 0.5


def test_images_of_another_loader_are_refused(sample):
    with pytest.raises(KeyError, match='LoadMultiViewImages of this project'):
        health_of(sample)


def test_patches_that_reach_over_the_image_are_as_healthy_as_what_is_in_them(loaded):
    """The image of 90 x 160 has less than four patches of 25 pixels along its height."""
    health = health_of(dict(loaded, failures=[Gone()]), patch_size=25)
    assert health['camera'].shape == (2, 4, 7)
    assert not health['camera'][0].any()


def test_what_does_not_come_from_the_image_is_healthy(loaded):
    """Shrunk to 54 x 96 pixels, the rest of 80 x 160 is black in any case."""
    matrices = np.array([np.diag([0.6, 0.6, 1])] * 2)
    loaded.update(img_shape=(80, 160), img_aug_matrix=matrices, failures=[Gone()])
    camera = health_of(loaded, patch_size=40)['camera']
    assert camera[0].tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


SIZES = dict(voxel_size=[1.0, 2.0, 4.0], bev_stride=5, image_stride=10)


def packer(**changes) -> PackHealth:
    options = dict(keys=['points', 'gt_labels_3d'], meta_keys=('token',), point_cloud_range=RANGE)
    return PackHealth(**{**options, **SIZES, **changes})


def test_maps_are_packed_as_inputs_of_the_size_of_tokens(loaded):
    del loaded['img']  # of two sizes
    packed = packer()(dict(loaded, token='a', failures=[Corner()]))
    inputs = packed['inputs']
    assert inputs.keys() == {'points', 'health'}
    assert inputs['health']['lidar'].tolist() == [[1] * 8, [1, 1, 1, 1, 1, 1, 0.5, 0.5]]
    assert inputs['health']['camera'].shape == (2, 9, 16)
    assert packed['data_samples'].metainfo == {'token': 'a'}
    assert len(packed['data_samples'].gt_instances_3d) == 3


@pytest.mark.parametrize('name', ['bev_stride', 'image_stride', 'samples'])
def test_sizes_that_make_no_sense(name):
    with pytest.raises(ValueError, match=f'PackHealth: .*{name}=0'):
        packer(**{name: 0})


def test_images_of_other_sizes_have_maps_of_their_own_extent(loaded):
    loaded['loaded_shapes'] = [loaded['img_shape'], (20, 30)]
    loaded['failures'] = [Gone()]
    assert health_of(loaded)['camera'].max() == 0
