"""Token layouts and random windows of the doctor and the benchmarks."""

import pytest
import torch

from projects.cmt_aqr.doctor.decoder_inputs import NUM_CAMERAS, SIZES, Size, random_windows

TINY = Size(bev=(12, 10), image=(4, 6), camera_window=3)


@pytest.mark.parametrize(
    ('name', 'tokens'), [('r50', 22_384), ('vov', 56_400), ('vov_x4', 225_600)]
)
def test_sizes_are_those_of_the_released_models(name, tokens):
    assert SIZES[name].num_tokens == tokens


def test_queries_have_windows_in_as_many_cameras_as_on_the_real_frame():
    bev, cameras = random_windows(TINY, torch.device('cpu'), num_queries=900)
    assert bev.query.tolist() == list(range(900))
    assert cameras.token.min() >= TINY.layout.lidar_tokens
    seen_by = torch.bincount(cameras.query, minlength=900).bincount(minlength=3)
    torch.testing.assert_close(seen_by / 900, torch.tensor([0.025, 0.85, 0.125]), atol=0.05, rtol=0)
    assert cameras.group.max() == NUM_CAMERAS
