"""Statistics of points and images, against points and pixels placed by hand."""

import math

import numpy as np
import pytest
import torch
from pretend_device import DEVICE, PretendDevice

from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.health.statistics import PixelStatistics, RangeImage, project_returns

LOOKS_ALONG_X = np.array([[50.0, -100, 0, 0], [20, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def at(distance, elevation, azimuth, intensity=8.0, age=0.0) -> list[float]:
    """A point by its direction in degrees."""
    e, a = math.radians(elevation), math.radians(azimuth)
    flat = distance * math.cos(e)
    z = distance * math.sin(e)
    return [flat * math.cos(a), flat * math.sin(a), z, intensity, age]


@pytest.fixture
def small() -> RangeImage:
    """Four rows of 10° from -30° and eight columns of 45° from -180°."""
    return RangeImage(rows=4, columns=8, elevation=(-30, 10))


def test_a_cell_has_its_nearest_return_their_number_and_mean_intensity(small):
    cloud = torch.tensor([at(9, -25, 20, 4.0), at(7, -22, 30, 8.0), at(30, 5, -170)])
    image = small([cloud, cloud[:0]])
    assert image.shape == (2, 3, 4, 8)
    assert not image[1].any()
    assert image[0, :, 0, 4].tolist() == pytest.approx([7, math.log(3), 6], rel=1e-5)
    assert image[0, :, 3, 0].tolist() == pytest.approx([30, math.log(2), 8], rel=1e-5)
    assert (image[0, 1] > 0).sum() == 2


def test_points_out_of_the_rows_and_of_past_sweeps_are_left_out(small):
    cloud = torch.tensor([at(9, -35, 0), at(9, 15, 0), at(9, -5, 0, age=0.05)])
    assert not small([cloud]).any()
    without_age = RangeImage(rows=4, columns=8, elevation=(-30, 10), age_dim=None)
    assert (without_age([cloud[:, :4]])[0, 1] > 0).sum() == 1


def test_returns_lie_where_they_were_up_to_the_size_of_a_cell():
    torch.manual_seed(0)
    cloud = torch.tensor([at(5.0 + i, -29 + 1.2 * i, -179 + 11.3 * i) for i in range(32)])
    statistics = RangeImage()
    points = statistics.points(statistics([cloud]))[0]
    found = points[points.any(dim=-1)]
    apart = torch.cdist(cloud[:, :3], found)
    assert len(found) == 32
    assert (apart.amin(dim=1) < cloud[:, :3].norm(dim=1) * math.radians(1.0)).all()


def test_the_grid_finds_the_cell_of_a_point(small):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4, 8)
    point = torch.tensor([at(12, -5, 67.5)])[:, :3]  # the centre of row 2 and column 5
    found = torch.nn.functional.grid_sample(image, small.grid(point)[None, None])
    assert found.item() == pytest.approx(image[0, 0, 2, 5].item(), rel=1e-5)


def test_brightness_and_sharpness_by_cell():
    imgs = torch.zeros(1, 2, 3, 8, 16)
    imgs[0, 0, :, :, 8:12] = torch.tensor([1.0, 2.0, 6.0])[:, None, None]
    found = PixelStatistics(cell=4)(imgs)
    assert found.shape == (1, 2, 5, 2, 4)
    assert found[0, 0, :3, 0, 2].tolist() == [1, 2, 6]
    flat = math.log(1e-3)
    assert found[0, 1, 3:].unique().tolist() == pytest.approx([flat])
    # The grey step of 3: one of four columns differs from its right neighbour on each side.
    assert found[0, 0, 3, 0].exp().tolist() == pytest.approx([0, 0.75, 0.75, 0], abs=2e-3)
    assert found[0, 0, 4, 0].exp().tolist() == pytest.approx([0, 0.75, 1.5, 0.75], abs=2e-3)


def test_an_image_whose_size_is_no_multiple_keeps_its_rim():
    assert PixelStatistics(cell=4)(torch.zeros(1, 1, 3, 10, 6)).shape[-2:] == (3, 2)


def test_returns_in_each_cell_of_an_image():
    """Cells of 10 x 10 pixels; the camera looks along +x, and the second camera is missing."""
    meta = dict(lidar2img=LOOKS_ALONG_X[None], pad_shape=(40, 100))
    cameras = batch_cameras([meta], like=torch.zeros(1, 2))
    # Pixels (45, 25), (46, 24), behind the camera, beside the image, and no return.
    points = [[10, 0.5, -0.5], [5, 0.2, -0.2], [-10, 0, 0], [10, 9, 0], [0, 0, 0]]
    values = torch.tensor([[3.0, 5.0, 7.0, 7.0, 7.0]])
    found = project_returns(torch.tensor([points]), values, cameras, (4, 10))
    assert found.shape == (1, 2, 4, 4, 10)
    expected = [math.log(3), (0.1 + 0.2) / 2, -0.35, 4.0]
    assert found[0, 0, :, 2, 4].tolist() == pytest.approx(expected, rel=1e-5)
    found[0, 0, :, 2, 4] = 0
    assert not found.any()


def test_no_return_is_nowhere_in_an_image():
    """Although a camera behind the LiDAR sees the origin."""
    behind = LOOKS_ALONG_X.copy()
    behind[:3, 3] = LOOKS_ALONG_X[:3, :3] @ [1.0, 0, 0]
    cameras = batch_cameras(
        [dict(lidar2img=behind[None], pad_shape=(40, 100))], like=torch.zeros(1, 1)
    )
    found = project_returns(torch.zeros(1, 3, 3), torch.ones(1, 3), cameras, (4, 10))
    assert not found.any()


def test_nothing_waits_for_the_device():
    metas = [dict(lidar2img=LOOKS_ALONG_X[None], pad_shape=(40, 100))] * 2
    with PretendDevice() as device:
        clouds = [torch.rand(50, 5).to(DEVICE), torch.rand(0, 5).to(DEVICE)]
        images = torch.rand(2, 1, 3, 40, 100).to(DEVICE)
        cameras = batch_cameras(metas, like=images)
        ranges, pixels = RangeImage().to(DEVICE), PixelStatistics(cell=4).to(DEVICE)
        device.waits.clear()
        image = ranges(clouds)
        pixels(images)
        project_returns(ranges.points(image), image[:, 2].flatten(1), cameras, (10, 25))
    assert not device.waits
