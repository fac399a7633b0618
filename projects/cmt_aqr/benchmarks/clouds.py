"""Clouds of random points; imports with torch alone."""

import torch
from torch import Tensor


def random_cloud(num_points: int, limits: Tensor) -> Tensor:
    """(N, 5): x, y, z, intensity and time of points with uniform azimuth, distance and height.

    Args:
        num_points: N; some of them lie outside the range.
        limits: range of the points, ``(x_min, y_min, z_min, x_max, y_max, z_max)``, metres.
    """
    azimuth = torch.rand(num_points) * 2 * torch.pi
    distance = torch.rand(num_points) * limits[3]
    height = limits[2] + torch.rand(num_points) * (limits[5] - limits[2])
    intensity = torch.rand(num_points) * 255
    return torch.stack(
        [
            distance * azimuth.cos(),
            distance * azimuth.sin(),
            height,
            intensity,
            torch.zeros(num_points),
        ],
        dim=1,
    )
