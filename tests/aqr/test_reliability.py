"""Targets and losses of the router's weights by hand."""

import pytest
import torch

from projects.cmt_aqr.aqr import ReliabilityLoss, TokenLayout, Windows
from projects.cmt_aqr.aqr.reliability import target_weights

LAYOUT = TokenLayout(bev=(1, 2), image=(1, 1), num_cameras=2)  # tokens 0-1, 2, 3
THERE = torch.ones(1, 1, 2, dtype=torch.bool)


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


def loss_of(weights, health, grouping='modality', windows=WINDOWS, given=(), **options):
    loss = ReliabilityLoss(**{'activation': 'tanh', **options})
    return loss(
        torch.as_tensor(weights),
        torch.tensor([health]),
        windows=windows,
        groups=LAYOUT.groups(grouping, torch.device('cpu')),
        **dict(given),
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
    target = target_weights(torch.tensor([[[0.25, 1.0]]]), THERE, activation)
    torch.testing.assert_close(target, torch.tensor([[expected]]))
    assert not target_weights(torch.ones(1, 1, 2), THERE, activation).any()


def test_a_softmax_counts_groups_that_are_there_and_is_neutral_where_all_is_lost():
    there = torch.tensor([[[True, True, False]]])
    share = torch.tensor([[[0.5, 1.0, 1.0], [0.0, 0.0, 1.0]]])
    target = target_weights(share, there, 'softmax')
    torch.testing.assert_close(target, torch.tensor([[[-1 / 6, 1 / 6, 0], [0, 0, 0]]]))


def test_the_loss_is_the_mean_over_what_a_query_can_see():
    weights = [[[0.5, -0.25], [0.0, 0.75]]]  # the last one has no target: no camera sees query 1
    loss = loss_of(weights, [0.5, 1.0, 0.0, 1.0])
    # Targets: LiDAR -0.5 and 0; both cameras of query 0 together -0.5.
    assert loss.item() == pytest.approx((1.0**2 + 0.25**2 + 0) / 3)
    assert loss_of(weights, [0.5, 1.0, 0.0, 1.0], loss_weight=4.0).item() == pytest.approx(
        4 * loss.item()
    )


def test_each_camera_may_have_a_target_of_its_own():
    weights = torch.zeros(1, 2, 3, requires_grad=True)
    loss = loss_of(weights, [1.0, 1.0, 0.0, 0.5], grouping='camera')
    assert loss.item() == pytest.approx((1 + 0.25) / 4)
    loss.backward()
    expected = torch.tensor([[[0, 2 / 4, 1 / 4], [0, 0, 0]]])
    torch.testing.assert_close(weights.grad, expected)


def test_healthy_input_may_be_left_free():
    weights = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]], requires_grad=True)
    loss = loss_of(weights, [0.0, 1.0, 0.5, 0.5], pull_healthy=False)
    # LiDAR of query 0: target -1, counts 1; its cameras: target -0.5, count a half.
    assert loss.item() == pytest.approx((1.5**2 + 0.5 * 1.0**2) / 1.5)
    loss.backward()
    assert (weights.grad[0, 0] > 0).all()
    assert not weights.grad[0, 1].any()
    assert loss_of(weights, [1.0] * 4, pull_healthy=False) == 0


def test_input_counts_as_whole_from_a_given_share_on():
    weights = [[[0.0, 0.0], [0.0, 0.0]]]
    health = [0.05, 0.1, 1.0, 1.0]  # query 0 sees the first, query 1 the second token of LiDAR
    expected = 0.5**2 / 3
    loss = loss_of(weights, health, healthy_from=0.1)
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_a_frame_has_the_same_target_for_all_queries():
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    loss = loss_of(weights, [0.0, 1.0, 1.0, 0.5], labels='frame')
    # LiDAR -0.5 and cameras -0.25, whether a camera sees the query or not.
    assert loss.item() == pytest.approx((0.25 + 0.0625) / 2)
    loss.backward()
    torch.testing.assert_close(weights.grad[0, 0], weights.grad[0, 1])


def test_sensors_that_are_not_there_have_no_target():
    present = torch.tensor([[True, True, False, False]])
    loss = loss_of(
        [[[-0.5, 0.9], [-0.5, 0.9]]], [0.5] * 4, labels='frame', given={'present': present}
    )
    assert loss.item() == 0


def test_denoising_queries_do_not_count():
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    loss_of(weights, [0.0, 0.5, 0.0, 0.0], given={'denoising_slots': 1}).backward()
    assert weights.grad.tolist() == [[[0, 0], [1, 0]]]


def test_a_batch_without_any_window_costs_nothing_and_has_a_gradient():
    weights = torch.full((1, 2, 2), 0.5, requires_grad=True)
    loss = loss_of(weights, [0.0] * 4, windows=[])
    loss.backward()
    assert loss == 0
    assert not weights.grad.any()


def test_logits_of_a_hard_choice_learn_by_cross_entropy():
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    loss = loss_of(logits, [0.0, 0.0, 1.0, 1.0], activation='none', labels='frame')
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item())
    loss.backward()  # towards cameras alone
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor([1 / 6, -1 / 3]))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(healthy_from=0), 'healthy_from is 0'),
        ({'labels': 'token'}, r"labels is 'token'; it must be one of \['query', 'frame'\]"),
        ({'loss_weight': 0.0}, 'loss_weight is 0.0; it must be above 0. aqr.reliability=None'),
        ({'activation': 'none', 'pull_healthy': False}, 'pull_healthy is False, but a hard choice'),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        ReliabilityLoss(**{'activation': 'tanh', **options})
