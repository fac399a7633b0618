"""Weight maps of queries placed by hand, and what drawing them costs."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from projects.cmt_aqr.aqr import TokenLayout, bev_windows, camera_windows, render_weights
from projects.cmt_aqr.geometry import project

RANGE = [-4.0, -2.0, -2.0, 4.0, 2.0, 2.0]
LAYOUT = TokenLayout(bev=(4, 8), image=(4, 8), num_cameras=2)  # cells of 1 m and of 10 pixels
IMAGE = (40, 80)
SIGMA = 0.5  # of windows of 3 cells: 1.5 cells


def fall(*distance):
    """The Gaussian at a distance in cells."""
    return math.exp(-sum(part**2 for part in distance) / (2 * (3 * SIGMA) ** 2))


def bev_parts(*points, size=3):
    return bev_windows(
        torch.tensor([points]), LAYOUT, size=size, point_cloud_range=RANGE, cell_size=(1.0, 1.0)
    )


def camera_parts(*points, size=3):
    """Cameras at the origin that look along x and against it, with a focal length of 40 pixels."""
    ahead = torch.tensor([[40.0, -40, 0, 0], [20, 0, -40, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    behind = torch.cat([-ahead[:3], ahead[3:]])
    projection = project(torch.tensor([points]), torch.stack([ahead, behind])[None], IMAGE)
    camera_mask = torch.ones(1, 2, dtype=torch.bool)
    return camera_windows(projection, camera_mask, LAYOUT, size=size, image_shape=IMAGE)


def render(weights, *windows, **options):
    return render_weights(torch.tensor([weights]), windows, LAYOUT, sigma=SIGMA, **options)


def test_a_query_alone_leaves_its_weight_in_its_window_and_a_gaussian():
    maps = render([[-0.8, 0.6]], bev_parts((1.5, 0.5, 0.0)))  # middle of column 5, row 2
    bev, cameras = LAYOUT.maps(maps.coverage)
    expected = torch.zeros(4, 8)
    for row in (1, 2, 3):
        for column in (4, 5, 6):
            expected[row, column] = fall(row - 2, column - 5)
    torch.testing.assert_close(bev[0], expected)
    assert bev[0, 2, 5] == 1
    assert not cameras.any()
    mean, _ = LAYOUT.maps(maps.mean)
    torch.testing.assert_close(mean[0], -0.8 * (expected > 0))
    torch.testing.assert_close(LAYOUT.maps(maps.faded)[0][0], -0.8 * expected)


def test_where_queries_overlap_the_nearer_counts_more():
    weights = [[1.0, 0.0], [-0.5, 0.0]]
    maps = render(weights, bev_parts((0.5, 0.5, 0.0), (1.5, 0.5, 0.0)))  # columns 4 and 5, row 2
    near, far = 1.0, fall(1)
    mean = LAYOUT.maps(maps.mean)[0][0, 2]
    assert mean[4].item() == pytest.approx((1.0 * near - 0.5 * far) / (near + far))
    assert mean[5].item() == pytest.approx((1.0 * far - 0.5 * near) / (near + far))
    coverage = LAYOUT.maps(maps.coverage)[0][0, 2]
    assert coverage[4].item() == pytest.approx(near + far)
    # Covered more than once, the map holds the mean itself: no sum beyond the weights.
    torch.testing.assert_close(LAYOUT.maps(maps.faded)[0][0, 2, 4:6], mean[4:6])


def test_every_camera_that_sees_a_query_gets_its_weight():
    windows = camera_parts((2.0, -0.1, -0.1), (-2.0, 0.1, 0.1))
    bev, cameras = LAYOUT.maps(render([[0.0, 0.6], [0.0, -0.4]], windows).mean)
    assert not bev.any()
    # Both stand at u = v + 20 = 42, in column 4 and row 2.
    expected = torch.zeros(4, 8)
    expected[1:4, 3:6] = 1
    torch.testing.assert_close(cameras[0], torch.stack([0.6 * expected, -0.4 * expected]))


def test_each_camera_has_a_weight_of_its_own():
    maps = render([[0.0, 0.6, 0.3]] * 2, camera_parts((2.0, 0.1, 0.1), (-2.0, 0.1, 0.1)))
    ahead, behind = LAYOUT.maps(maps.mean)[1][0]
    assert (ahead.max().item(), behind.max().item()) == (pytest.approx(0.6), pytest.approx(0.3))


def test_windows_beyond_the_map_and_no_windows_leave_nothing():
    outside = bev_parts((50.0, 50.0, 0.0))
    for windows in ([outside], [camera_parts((0.0, 2.0, 50.0))], []):
        maps = render([[1.0, 1.0]], *windows)
        assert maps.mean.shape == maps.coverage.shape == (1, 32 + 2 * 32)
        assert not maps.mean.any()
        assert not maps.coverage.any()


def test_samples_are_kept_apart():
    points = torch.tensor([[[1.5, 0.5, 0.0]], [[-2.5, -0.5, 0.0]]])
    windows = bev_windows(points, LAYOUT, size=1, point_cloud_range=RANGE, cell_size=(1.0, 1.0))
    maps = render_weights(torch.tensor([[[0.5, 0.0]], [[-0.5, 0.0]]]), [windows], LAYOUT)
    assert maps.mean.nonzero().tolist() == [[0, 2 * 8 + 5], [1, 1 * 8 + 1]]


def test_a_layout_without_a_sensor_has_no_map_of_it():
    only_bev = TokenLayout(bev=(4, 8), image=None, num_cameras=0)
    maps = render_weights(torch.ones(1, 1, 2), [bev_parts((1.5, 0.5, 0.0))], only_bev)
    bev, cameras = only_bev.maps(maps.mean)
    assert bev.shape == (1, 4, 8)
    assert cameras is None


def test_gradients_reach_the_weights_alone_where_they_are_drawn():
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    maps = render_weights(weights, [bev_parts((0.5, 0.5, 0.0), (50.0, 0.0, 0.0))], LAYOUT)
    maps.faded.sum().backward()
    assert (weights.grad != 0).tolist() == [[[True, False], [False, False]]]


def test_half_precision_is_not_used_for_sums():
    weights = torch.full((1, 1, 2), 0.8, dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        maps = render_weights(weights, [bev_parts((1.5, 0.5, 0.0))], LAYOUT)
    assert maps.mean.dtype == torch.float32
    assert maps.mean.max() == weights.float().max()


class _Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_no_tensor_of_queries_times_cells_is_made():
    queries, layout = 300, TokenLayout(bev=(100, 100), image=None, num_cameras=0)
    points = torch.rand(1, queries, 3) * 4 - 2
    windows = bev_windows(points, layout, size=5, point_cloud_range=RANGE, cell_size=(0.08, 0.04))
    with _Largest() as largest:
        render_weights(torch.ones(1, queries, 2), [windows], layout)
    assert largest.numel <= 2 * max(queries * 25, layout.lidar_tokens)
