"""Targets and losses of the router's weights by hand."""

import pytest
import torch

from projects.cmt_aqr.aqr import TokenLayout, Windows, reliability_loss
from projects.cmt_aqr.aqr.reliability import target_weights

LAYOUT = TokenLayout(bev=(1, 2), image=(1, 1), num_cameras=2)  # tokens 0-1, 2, 3
VALID = torch.ones(1, 1, 2, dtype=torch.bool)


def one_cell_windows(pairs):
    """Windows of one cell: (sample, query, group, token) each."""
    sample, query, group, token = torch.tensor(pairs).T
    inside = torch.ones(len(pairs), 1, dtype=torch.bool)
    return Windows(sample, query, group, token[:, None], inside, torch.zeros(len(pairs), 1, 2))


# Query 0 sees token 0 and both cameras, query 1 token 1 and no camera.
WINDOWS = [
    one_cell_windows([(0, 0, 0, 0), (0, 1, 0, 1)]),
    one_cell_windows([(0, 0, 1, 2), (0, 0, 2, 3)]),
]


def loss_of(weights, health, grouping='modality', windows=WINDOWS, **options):
    groups = LAYOUT.groups(grouping, torch.device('cpu'))
    return reliability_loss(
        torch.as_tensor(weights),
        torch.tensor([health]),
        windows=windows,
        valid_groups=groups.valid(None)[:, 0],
        **{'activation': 'tanh', **options},
    )


@pytest.mark.parametrize(
    ('activation', 'expected'),
    [
        ('tanh', [-0.75, 0.0]),
        ('sigmoid', [-0.375, 0.0]),
        ('softmax', [0.25 / 1.25 - 0.5, 1 / 1.25 - 0.5]),
    ],
)
def test_damage_suppresses_and_health_is_neutral(activation, expected):
    target = target_weights(torch.tensor([[[0.25, 1.0]]]), VALID, activation)
    torch.testing.assert_close(target, torch.tensor([[expected]]))
    assert not target_weights(torch.ones(1, 1, 2), VALID, activation).any()


def test_a_softmax_counts_valid_groups_and_is_neutral_where_all_is_lost():
    valid = torch.tensor([[[True, True, False]]])
    share = torch.tensor([[[0.5, 1.0, 1.0], [0.0, 0.0, 1.0]]])
    target = target_weights(share, valid, 'softmax')
    torch.testing.assert_close(target, torch.tensor([[[-1 / 6, 1 / 6, 0], [0, 0, 0]]]))


def test_the_loss_is_the_mean_over_what_a_query_can_see():
    weights = [[[0.5, -0.25], [0.0, 0.75]]]  # the last one has no target: no camera sees query 1
    loss = loss_of(weights, [0.5, 1.0, 0.0, 1.0])
    # Targets: LiDAR -0.5 and 0; both cameras of query 0 together -0.5.
    assert loss.item() == pytest.approx((1.0**2 + 0.25**2 + 0) / 3)


def test_each_camera_may_have_a_target_of_its_own():
    weights = torch.zeros(1, 2, 3, requires_grad=True)
    loss = loss_of(weights, [1.0, 1.0, 0.0, 0.5], grouping='camera')
    assert loss.item() == pytest.approx((1 + 0.25) / 4)
    loss.backward()
    expected = torch.tensor([[[0, 2 / 4, 1 / 4], [0, 0, 0]]])
    torch.testing.assert_close(weights.grad, expected)


def test_denoising_queries_do_not_count():
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    loss_of(weights, [0.0, 0.5, 0.0, 0.0], denoising_slots=1).backward()
    assert weights.grad.tolist() == [[[0, 0], [1, 0]]]


def test_a_batch_without_any_window_costs_nothing_and_has_a_gradient():
    weights = torch.full((1, 2, 2), 0.5, requires_grad=True)
    loss = loss_of(weights, [0.0] * 4, windows=[])
    loss.backward()
    assert loss == 0
    assert not weights.grad.any()
