"""Health of tokens and windows by hand."""

import numpy as np
import pytest
import torch

from projects.cmt_aqr.aqr import TokenLayout, Windows, token_health
from projects.cmt_aqr.aqr.health import window_health

LAYOUT = TokenLayout(bev=(2, 2), image=(1, 2), num_cameras=2)  # tokens 0-3, 4-5, 6-7
LIKE = torch.zeros(1)


def meta(lidar=None, camera=None, **others):
    lidar = np.ones((2, 2)) if lidar is None else np.array(lidar)
    camera = np.ones((2, 1, 2)) if camera is None else np.array(camera)
    return {'health': {'lidar': lidar, 'camera': camera}, 'img_shape': (8, 16), **others}


def tokens(*metas, layout=LAYOUT, bev_extent=(1.0, 1.0), pad_shape=(8, 16)):
    return token_health(metas, layout, bev_extent=bev_extent, pad_shape=pad_shape, like=LIKE)


def test_a_map_of_the_tokens_own_size_is_taken_as_it_is():
    sample = meta([[0.0, 0.25], [0.5, 1.0]], [[[0.1, 0.2]], [[0.3, 0.4]]])
    expected = torch.tensor([[0, 0.25, 0.5, 1, 0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(tokens(sample), expected)


def test_finer_maps_are_averaged_and_coarser_ones_spread():
    fine = np.zeros((4, 6))
    fine[:2, :3] = 1  # the upper left cell
    fine[3, 5] = 1  # one of six elements of the lower right cell
    sample = meta(fine, [[[0.5]], [[0.25]]])
    expected = torch.tensor([[1, 0, 0, 1 / 6, 0.5, 0.5, 0.25, 0.25]])
    torch.testing.assert_close(tokens(sample), expected)


def test_sizes_need_not_divide_each_other():
    sample = meta([[1.0, 0.0, 0.0]])  # three elements for two cells, one row for two
    torch.testing.assert_close(tokens(sample)[0, :4], torch.tensor([2 / 3, 0, 2 / 3, 0]))


def test_a_bev_map_may_span_less_than_the_range():
    # Two cells over half of the range along x: the left two of four elements.
    sample = meta([[0.0, 0.5, 1.0, 1.0]])
    half = tokens(sample, bev_extent=(1.0, 0.5))
    torch.testing.assert_close(half[0, :4], torch.tensor([0, 0.5, 0, 0.5]))


def test_padding_takes_the_edge_of_the_image():
    layout = LAYOUT._replace(image=(1, 4))
    sample = meta(camera=[[[0.0, 0.5]], [[1.0, 0.0]]])
    wide = tokens(sample, layout=layout, pad_shape=(8, 32))  # the image fills the left half
    torch.testing.assert_close(wide[0, 4:], torch.tensor([0, 0.5, 0.5, 0.5, 1, 0, 0, 0]))


def test_samples_stand_apart_and_absent_cameras_are_healthy():
    both = tokens(meta(camera=np.zeros((1, 1, 2))), meta(lidar=np.zeros((2, 2))))
    assert both.tolist() == [[1, 1, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_without_a_sensor_its_tokens_are_left_out():
    cameras = tokens(meta(), layout=LAYOUT._replace(bev=None), bev_extent=None)
    lidar = tokens(meta(), layout=TokenLayout((2, 2), None, 0), pad_shape=None)
    assert cameras.shape == lidar.shape == (1, 4)


@pytest.mark.parametrize(
    ('sample', 'message'),
    [
        ({'token': 'abc'}, r"sample abc has no health of \['lidar', 'camera'\]: for the rel"),
        (
            {'health': {'lidar': np.ones((1, 1))}},
            r"sample 0 of the batch has no health of \['camera'\]: .* put PackHealth before",
        ),
    ],
)
def test_missing_health_is_named_with_the_remedy(sample, message):
    with pytest.raises(ValueError, match=message):
        tokens(sample)


def make_windows(sample, query, group, token, inside=None):
    token = torch.tensor(token)
    inside = torch.ones_like(token, dtype=torch.bool) if inside is None else torch.tensor(inside)
    place = (torch.tensor(x) for x in (sample, query, group))
    return Windows(*place, token, inside, torch.zeros(*token.shape, 2))


HEALTH = torch.tensor([[0.0, 0.5, 1.0, 1.0, 0.2, 0.4, 0.6, 1.0]])
LIDAR = make_windows([0, 0, 0], [0, 1, 2], [0, 0, 0], [[0, 1], [2, 1], [3, 3]],
                     [[True, True], [False, True], [False, False]])  # fmt: skip
# Both cameras see query 0, the second one with one cell only; none sees the others.
CAMERA = make_windows([0, 0], [0, 0], [1, 2], [[4, 5], [6, 7]], [[True, True], [False, True]])


def test_health_of_windows_is_the_mean_of_their_cells_on_the_map():
    result = window_health(HEALTH, [LIDAR, CAMERA], torch.Size([1, 3, 2]))
    camera = (0.2 + 0.4 + 1.0) / 3  # three cells of two cameras
    expected = torch.tensor([[[0.25, camera], [0.5, 1], [1, 1]]])
    torch.testing.assert_close(result.share, expected)
    assert result.known.tolist() == [[[True, True], [True, False], [False, False]]]


def test_health_of_windows_of_each_camera():
    result = window_health(HEALTH, [LIDAR, CAMERA], torch.Size([1, 3, 3]))
    torch.testing.assert_close(result.share[0, 0], torch.tensor([0.25, 0.3, 1.0]))
    assert result.known[0, 0].all()
