"""Pure geometry, against points placed by hand."""

import pytest
import torch

from projects.cmt_aqr.geometry import (
    VoxelGrid,
    bev_cells,
    bev_grid,
    check_range,
    depth_bins,
    image_cells,
    lift,
    metres_to_unit,
    project,
    token_pixels,
    unit_to_metres,
)

RANGE = (-10.0, -20.0, -5.0, 10.0, 20.0, 3.0)
SHAPE = (60, 100)


def forward_camera():
    """Looks along +y from the origin; focal length 50 pixels, centre (50, 30)."""
    return torch.tensor([[50.0, 50, 0, 0], [0, 30, -50, 0], [0, 1, 0, 0], [0, 0, 0, 1]])[None, None]


def test_unit_range_and_metres_are_inverse():
    corners = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.25, 0.75]])
    metres = unit_to_metres(corners, RANGE)
    assert metres.tolist() == [[-10, -20, -5], [10, 20, 3], [0, -10, 1]]
    torch.testing.assert_close(metres_to_unit(metres, RANGE), corners)


@pytest.mark.parametrize('bad', [(0, 0, 0, 1, 1), (0, 0, 0, 1, 0, 1), (0, 0, 2, 1, 1, 1)])
def test_a_malformed_range_is_named(bad):
    with pytest.raises(ValueError, match='x_min, y_min, z_min'):
        check_range(bad)


def test_projection_by_hand():
    points = torch.tensor([[[0.0, 10, 0], [2, 10, 1], [0, -10, 0], [20, 10, 0], [0, 0, 0]]])
    pixels, depth, visible = project(points, forward_camera(), SHAPE)
    assert depth[0, 0].tolist() == [10, 10, -10, 10, 0]
    torch.testing.assert_close(
        pixels[0, 0, :2], torch.tensor([[50.0, 30, 1], [60, 25, 1]]), atol=1e-4, rtol=0
    )
    assert visible[0, 0].tolist() == [True, True, False, False, False]


def test_border_pixels():
    """The left and top border belong to the image, the right and bottom ones do not."""
    u = torch.tensor([0.0, 99.5, 100.5])
    points = torch.stack([(u - 50) / 5, torch.full((3,), 10.0), torch.zeros(3)], dim=-1)[None]
    assert project(points, forward_camera(), SHAPE).visible[0, 0].tolist() == [True, True, False]


def test_lift_inverts_project():
    points = torch.tensor([[[1.0, 8, 0.5], [-2, 12, -1]]])
    camera = forward_camera()
    projection = project(points, camera, SHAPE)
    lifted = lift(projection.pixels, torch.tensor([8.0, 12.0]), torch.linalg.inv(camera))
    assert lifted.shape == (1, 1, 2, 2, 3)
    torch.testing.assert_close(lifted[0, 0, [0, 1], [0, 1]], points[0], atol=1e-4, rtol=1e-5)


def test_gradient_of_depth_comes_through_the_third_entry_alone():
    points = torch.tensor([[[1.0, 8, 0.5]]], requires_grad=True)
    pixels = project(points, forward_camera(), SHAPE).pixels[0, 0, 0]
    (of_u,) = torch.autograd.grad(pixels[0], points, retain_graph=True)
    (of_one,) = torch.autograd.grad(pixels[2], points)
    # u * depth = 50 x + 50 y: both coordinates count, divided by the depth as a constant.
    torch.testing.assert_close(of_u, torch.tensor([[[50 / 8, 50 / 8, 0]]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(of_one, torch.tensor([[[0, 1 / 8, 0]]]), atol=1e-6, rtol=0)


def test_depths_start_at_one_metre_and_stop_short_of_the_range():
    assert depth_bins(3, RANGE, like=torch.zeros(1)).tolist() == [1, 4, 7]


def test_bev_grid_on_a_map_that_is_not_square():
    grid = bev_grid(2, 4, like=torch.zeros(1))
    assert grid.shape == (8, 2)
    assert grid[0].tolist() == [0.125, 0.25]
    assert grid[1].tolist() == [0.375, 0.25]
    assert grid[4].tolist() == [0.125, 0.75]


def test_token_pixels_stand_at_the_upper_left():
    pixels = token_pixels(3, 5, SHAPE, like=torch.zeros(1))
    assert pixels[:2].tolist() == [[0, 0, 1], [20, 0, 1]]
    assert pixels[5].tolist() == [0, 20, 1]


def test_cells_of_the_released_grid_which_is_smaller_than_its_range():
    # 1024 voxels of 0.1 m in 108 m: by the share of the range the ego would be in cell 64.
    grid = VoxelGrid(voxel_size=(0.1, 0.1, 0.2), shape=(41, 1024, 1024))
    limits = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    size = grid.cell_size((128, 128))
    assert size == pytest.approx((0.8, 0.8))
    cells = bev_cells(torch.tensor([[0.0, 0, 0], [48.4, -54, 0]]), limits, size)
    torch.testing.assert_close(cells, torch.tensor([[67.5, 67.5], [128, 0]]))


def test_the_stride_of_a_map_that_was_rounded_up():
    grid = VoxelGrid(voxel_size=(0.2, 0.1, 0.3), shape=(21, 900, 500))
    assert grid.cell_size((113, 63)) == pytest.approx((1.6, 0.8))


def test_cells_of_an_image_whose_sides_shrink_differently():
    pixels = torch.tensor([[40.0, 30, 1], [0, 0, 1]])
    cells = image_cells(pixels, image_shape=(60, 80), map_shape=(3, 16))
    assert cells.tolist() == [[8, 1.5], [0, 0]]
