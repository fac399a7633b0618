"""Layout of the tokens, read from the features."""

import torch

from projects.cmt_aqr.aqr import TokenLayout

CPU = torch.device('cpu')


def test_sizes_come_from_the_features():
    layout = TokenLayout.of(torch.zeros(2, 48, 3, 5), torch.zeros(2, 4, 8, 2, 6))
    assert layout == TokenLayout(bev=(3, 5), image=(2, 6), num_cameras=4)
    assert (layout.lidar_tokens, layout.tokens_per_camera) == (15, 12)


def test_groups_of_modalities_and_of_cameras():
    layout = TokenLayout(bev=(1, 2), image=(1, 3), num_cameras=2)
    assert layout.groups('modality', CPU).index.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert layout.groups('camera', CPU).index.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert layout.num_groups('modality') == 2
    assert layout.num_groups('camera') == 3


def test_a_sensor_that_is_missing_has_no_tokens_and_keeps_its_group():
    images_only = TokenLayout.of(None, torch.zeros(1, 2, 8, 1, 2))
    assert images_only.groups('camera', CPU).index.tolist() == [1, 1, 2, 2]
    lidar_only = TokenLayout.of(torch.zeros(1, 8, 1, 2), None)
    assert lidar_only.groups('modality', CPU).sizes == (2, 0)
    assert (lidar_only.num_groups('modality'), lidar_only.num_groups('camera')) == (2, 1)


def test_tokens_of_absent_cameras_are_masked():
    layout = TokenLayout(bev=(1, 2), image=(1, 1), num_cameras=2)
    mask = layout.token_mask(torch.tensor([[True, False], [True, True]]))
    assert mask.tolist() == [[True, True, True, False], [True] * 4]


def test_tokens_become_the_maps_they_came_from():
    layout = TokenLayout(bev=(1, 2), image=(1, 3), num_cameras=2)
    bev, cameras = layout.maps(torch.arange(8.0)[None])
    assert bev.tolist() == [[[0, 1]]]
    assert cameras.tolist() == [[[[2, 3, 4]], [[5, 6, 7]]]]
    assert TokenLayout(bev=(1, 2), image=None, num_cameras=0).maps(torch.zeros(1, 2))[1] is None
    assert TokenLayout(bev=None, image=(1, 2), num_cameras=1).maps(torch.zeros(1, 2))[0] is None
