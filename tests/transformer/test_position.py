"""Position codes by hand."""

import math

import torch

from projects.cmt_aqr.transformer import ray_code, sine_embedding


def test_sine_embedding_by_hand():
    code = sine_embedding(torch.tensor([0.25, 0.5, 0.9]), 4)
    wavelengths = [1.0, 1.5]  # 2 * (i // 2) / 4 + 1
    expected = [
        wave(2 * math.pi * position / length)
        for position in (0.5, 0.25)
        for length in wavelengths
        for wave in (math.sin, math.cos)
    ]
    torch.testing.assert_close(code, torch.tensor(expected), atol=1e-6, rtol=0)


def test_ray_code_runs_along_the_ray():
    """A camera that looks along x from the middle of a range of 20 m."""
    limits = (-10.0, -10.0, -10.0, 10.0, 10.0, 10.0)
    img2lidar = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    code = ray_code(
        torch.tensor([[0.0, 0.0, 1.0]]), img2lidar, depth_num=3, point_cloud_range=limits
    )
    torch.testing.assert_close(
        code, torch.tensor([[0.55, 0.5, 0.5, 0.7, 0.5, 0.5, 0.85, 0.5, 0.5]])
    )


def test_wavelengths_of_a_model_trained_from_scratch():
    """From the whole range down to a quarter of it, halving twice."""
    code = sine_embedding(torch.tensor([0.125, 0.0]), 6, (1.0, 0.25))[6:]
    angles = torch.tensor([0.25, 0.5, 1.0]) * math.pi
    expected = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten()
    torch.testing.assert_close(code, expected, atol=1e-6, rtol=0)
