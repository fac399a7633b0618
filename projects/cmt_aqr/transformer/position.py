"""Position embeddings of CMT: sines for BEV positions, points along the ray for pixels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..geometry import depth_bins, lift, metres_to_unit


def sine_embedding(
    position: Tensor, channels: int, wavelengths: tuple[float, float] | None = None
) -> Tensor:
    """(..., 2 * channels), y first: sines and cosines of a position in the unit range.

    Args:
        position: (..., 2 or 3); x and y are used.
        channels: number of channels for each of x and y.
        wavelengths: the longest and the shortest, as shares of the range, with a geometric
            progression between. By default they grow linearly from 1 to 2 over the channels: the
            released CMT was trained so, but neighbouring cells then differ little, and a model
            trained from scratch is slow to tell them apart.
    """
    index = torch.arange(channels, device=position.device, dtype=position.dtype) // 2
    if wavelengths is None:
        wavelength = 2 * index / channels + 1
    else:
        longest, shortest = wavelengths
        wavelength = longest * (shortest / longest) ** (index / (channels // 2 - 1))
    angle = 2 * math.pi * position[..., :2].flip(-1)[..., None] / wavelength
    waves = torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1)
    return waves.flatten(-3)


def ray_code(
    pixels: Tensor, img2lidar: Tensor, *, depth_num: int, point_cloud_range: Sequence[float]
) -> Tensor:
    """(..., P, 3D): D points along the ray through each pixel, in the unit range.

    Args:
        pixels: (..., P, 3), (u, v, 1) in pixels of the padded image.
        img2lidar: (..., 4, 4).
        depth_num: D.
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
    """
    depths = depth_bins(depth_num, point_cloud_range, like=pixels)
    points = lift(pixels, depths, img2lidar)
    return metres_to_unit(points, point_cloud_range).flatten(-2)


def position_mlp(in_features: int, hidden_features: int, out_features: int) -> nn.Sequential:
    """Two linear layers that turn a position code into an embedding."""
    return nn.Sequential(
        nn.Linear(in_features, hidden_features),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_features, out_features),
    )
