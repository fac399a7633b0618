"""Health of tokens and windows by hand."""

import pytest
import torch

from projects.cmt_aqr.aqr import TokenLayout, Windows, token_health
from projects.cmt_aqr.aqr.health import window_health

LAYOUT = TokenLayout(bev=(2, 2), image=(1, 2), num_cameras=2)  # tokens 0-3, 4-5, 6-7
LIKE = torch.zeros(1)


def tokens(lidar=None, camera=None, layout=LAYOUT, bev_extent=(1.0, 1.0)):
    health = {
        'lidar': torch.ones(1, 2, 2) if lidar is None else torch.tensor([lidar]),
        'camera': torch.ones(1, 2, 1, 2) if camera is None else torch.tensor([camera]),
    }
    return token_health(health, layout, bev_extent=bev_extent)


def test_each_token_has_the_health_of_its_cell():
    found = tokens([[0.0, 0.25], [0.5, 1.0]], [[[0.1, 0.2]], [[0.3, 0.4]]])
    torch.testing.assert_close(found, torch.tensor([[0, 0.25, 0.5, 1, 0.1, 0.2, 0.3, 0.4]]))


def test_a_bev_map_may_span_less_than_the_range():
    # Two of three cells along x: the third is beyond the declared grid.
    half = tokens([[0.0, 0.5, 1.0], [0.1, 0.2, 0.3]], bev_extent=(1.0, 0.7))
    torch.testing.assert_close(half[0, :4], torch.tensor([0, 0.5, 0.1, 0.2]))


def test_padding_of_images_is_healthy():
    wide = tokens(
        camera=[[[0.0, 0.5, 0.5]], [[1.0, 0.0, 0.5]]], layout=LAYOUT._replace(image=(1, 4))
    )
    torch.testing.assert_close(wide[0, 4:], torch.tensor([0, 0.5, 0.5, 1, 1, 0, 0.5, 1]))


def test_without_a_sensor_its_tokens_are_left_out():
    cameras = tokens(layout=LAYOUT._replace(bev=None), bev_extent=None)
    lidar = tokens(layout=TokenLayout((2, 2), None, 0))
    assert cameras.shape == lidar.shape == (1, 4)


def test_missing_health_is_named_with_the_remedy():
    with pytest.raises(ValueError, match='pack the samples with PackHealth'):
        token_health(None, LAYOUT, bev_extent=(1.0, 1.0))


@pytest.mark.parametrize(
    ('maps', 'message'),
    [
        (
            dict(lidar=[[1.0] * 4] * 4),
            r'BEV health map has \[4, 4\] cells for \[2, 2\] tokens: give P',
        ),
        (dict(lidar=[[1.0]]), r'BEV health map has \[1, 1\] cells'),
        (
            dict(camera=[[[1.0] * 3] * 2] * 2),
            r'image health map has \[2, 3\] cells for \[1, 2\] tok',
        ),
        (dict(camera=[[[1.0]]] * 2), r'image health map has \[1, 1\] cells'),
    ],
)
def test_cells_of_another_size_than_the_tokens_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        tokens(**maps)


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
