"""Windows of points placed by hand, where the cells can be counted on paper."""

import pytest
import torch

from projects.cmt_aqr.aqr import TokenLayout, bev_windows, camera_windows
from projects.cmt_aqr.geometry import project

RANGE = [-8.0, -4.0, -2.0, 8.0, 4.0, 2.0]
BEV = TokenLayout(bev=(4, 8), image=None, num_cameras=0)  # cells of 2 m
IMAGE = (40, 80)
TWO_CAMERAS = TokenLayout(bev=(4, 8), image=(4, 8), num_cameras=2)  # cells of 10 pixels


def bev(*points, size=3):
    return bev_windows(
        torch.tensor([points]), BEV, size=size, point_cloud_range=RANGE, cell_size=(2.0, 2.0)
    )


def cells(windows, index=0):
    """Tokens of one window that are on the map."""
    return windows.token[index][windows.inside[index]].tolist()


def looking_along(yaw_x: float) -> torch.Tensor:
    """Camera at the origin with a focal length of 40 pixels, along x (1) or against it (-1)."""
    matrix = torch.zeros(4, 4)
    matrix[0] = torch.tensor([40 * yaw_x, -40.0 * yaw_x, 0, 0])  # u * depth, centre at 40
    matrix[1] = torch.tensor([20 * yaw_x, 0, -40.0, 0])  # v * depth, centre at 20
    matrix[2, 0] = yaw_x
    matrix[3, 3] = 1
    return matrix


def camera(*points, matrices=None, size=3, camera_mask=None):
    if matrices is None:
        matrices = [looking_along(1.0), looking_along(-1.0)]
    matrices = torch.stack(matrices)[None]
    projection = project(torch.tensor([points]), matrices, IMAGE)
    if camera_mask is None:
        camera_mask = torch.ones(1, matrices.shape[1], dtype=torch.bool)
    return camera_windows(projection, camera_mask, TWO_CAMERAS, size=size, image_shape=IMAGE)


def test_a_bev_window_lies_round_the_cell_of_the_point():
    # x = 1.5 m is 9.5 m from the left: column 4; y = -1.9 m is 2.1 m from below: row 1.
    windows = bev((1.5, -1.9, 0.0))
    assert cells(windows) == [3, 4, 5, 11, 12, 13, 19, 20, 21]
    assert (windows.sample.tolist(), windows.query.tolist(), windows.group.tolist()) == (
        [0],
        [0],
        [0],
    )


def test_an_even_window_reaches_one_cell_further_up():
    assert cells(bev((1.5, -1.9, 0.0), size=2)) == [12, 13, 20, 21]
    one = bev((1.5, -1.9, 0.0), size=8)  # floor - 3 to floor + 4
    columns = one.token[0][one.inside[0]] % 8
    assert (columns.min().item(), columns.max().item()) == (1, 7)


def test_a_bev_window_is_cut_off_at_the_border():
    assert cells(bev((-7.9, -3.9, 0.0))) == [0, 1, 8, 9]
    assert cells(bev((7.9, 3.9, 0.0))) == [22, 23, 30, 31]


def test_a_query_beyond_the_map_has_an_empty_window():
    # A grid may be smaller than the range, so that a query is far beyond its last cell.
    assert cells(bev((30.0, 0.0, 0.0))) == []


def test_cells_are_counted_in_metres_from_the_corner_of_the_range():
    # The map covers 8 of the 16 m along x. By the share of the range x = 0 would be column 2.
    small = TokenLayout(bev=(4, 4), image=None, num_cameras=0)
    windows = bev_windows(
        torch.tensor([[[-3.0, -3.5, 0.0]]]),
        small,
        size=1,
        point_cloud_range=RANGE,
        cell_size=(2.0, 2.0),
    )
    assert cells(windows) == [2]


def test_a_camera_window_lies_round_the_pixel():
    # Almost straight ahead: pixel (40.8, 20.8), column 4 and row 2 of the front camera.
    windows = camera((5.0, -0.1, -0.1))
    assert windows.group.tolist() == [1]
    first = TWO_CAMERAS.lidar_tokens
    expected = [row * 8 + column for row in (1, 2, 3) for column in (3, 4, 5)]
    assert cells(windows) == [first + cell for cell in expected]


def test_a_point_behind_one_camera_is_seen_by_the_other():
    windows = camera((-5.0, 0.1, -0.1))
    assert windows.group.tolist() == [2]
    first = TWO_CAMERAS.lidar_tokens + TWO_CAMERAS.tokens_per_camera
    assert min(cells(windows)) == first + 8 + 3


def test_a_point_that_no_camera_sees_has_no_window():
    windows = camera((0.5, 3.0, 0.0), (5.0, 0.0, 0.0))  # the first is outside of both images
    assert windows.query.tolist() == [1]


def test_every_camera_that_sees_a_point_counts():
    windows = camera((5.0, 0.0, 0.0), matrices=[looking_along(1.0), looking_along(1.0)])
    assert windows.query.tolist() == [0, 0]
    assert windows.group.tolist() == [1, 2]
    one, other = windows.token
    assert (other - one).unique().tolist() == [TWO_CAMERAS.tokens_per_camera]


def test_a_camera_that_the_sample_lacks_gives_no_window():
    camera_mask = torch.tensor([[False, True]])
    windows = camera(
        (5.0, 0.0, 0.0), matrices=[looking_along(1.0), looking_along(1.0)], camera_mask=camera_mask
    )
    assert windows.group.tolist() == [2]


@pytest.mark.parametrize(('y', 'columns'), [(4.9, [0, 1]), (-4.9, [6, 7])])
def test_a_camera_window_is_cut_off_at_the_border(y, columns):
    windows = camera((5.0, y, 0.0))
    local = [(cell - TWO_CAMERAS.lidar_tokens) % 8 for cell in cells(windows)]
    assert sorted(set(local)) == columns


def test_both_axes_of_an_image_have_a_ratio_of_their_own():
    # Maps of 2 x 16 cells: 20 pixels high, 5 wide.
    layout = TokenLayout(bev=None, image=(2, 16), num_cameras=1)
    projection = project(torch.tensor([[[5.0, -0.1, -0.1]]]), looking_along(1.0)[None, None], IMAGE)
    camera_mask = torch.ones(1, 1, dtype=torch.bool)
    windows = camera_windows(projection, camera_mask, layout, size=1, image_shape=IMAGE)
    assert cells(windows) == [16 + 8]


def test_offsets_go_from_the_point_to_the_middle_of_the_cell():
    windows = bev((1.5, -1.9, 0.0), size=1)  # cell 4 from 0 m to 2 m, row 1 from -2 m to 0 m
    torch.testing.assert_close(windows.offset[0, 0], torch.tensor([-0.25, 0.45]))
