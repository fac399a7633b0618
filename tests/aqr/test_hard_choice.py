"""A hard choice: what is chosen, what is masked, and what the choice learns."""

import pytest
import torch
import torch.nn.functional as F

from projects.cmt_aqr.aqr import AttentionBiasGenerator
from projects.cmt_aqr.aqr.hard_choice import EXPERTS, choice_loss, choose, mask_others
from projects.cmt_aqr.aqr.health import GroupHealth
from projects.cmt_aqr.transformer import TokenGroups
from projects.cmt_aqr.transformer.backends import BACKENDS

GROUPS = TokenGroups.of([3, 2])
BOTH, LIDAR, CAMERA = range(3)


def test_the_largest_logit_wins_and_a_tie_is_for_both():
    logits = torch.tensor([[[0.0, 0.0], [-1.0, -2.0], [0.5, 0.1], [-3.0, 0.1], [0.0, -1.0]]])
    assert choose(logits).tolist() == [[BOTH, BOTH, LIDAR, CAMERA, BOTH]]
    assert EXPERTS == ('both', 'lidar', 'camera')


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=['single', 'half'])
def test_attention_is_that_to_the_chosen_sensor_alone(backend, dtype):
    q, k, v = (8 * torch.randn(1, 2, count, 128, dtype=dtype) for count in (3, 5, 5))
    k[..., :3, :] += 4  # the logits of the sensors lie far apart
    choice = torch.tensor([[BOTH, LIDAR, CAMERA]])
    out = BACKENDS[backend](q, k, v, routing=mask_others(choice, GROUPS), present=None)
    for query, tokens in enumerate((slice(0, 5), slice(0, 3), slice(3, 5))):
        alone = F.scaled_dot_product_attention(
            q[:, :, query : query + 1], k[:, :, tokens], v[:, :, tokens]
        )
        tolerance = 1e-4 if dtype is torch.float32 else 3e-2
        torch.testing.assert_close(
            out[:, :, query : query + 1], alone, atol=tolerance, rtol=tolerance
        )


def test_what_is_masked_gets_no_gradient():
    v = torch.randn(1, 2, 5, 8, requires_grad=True)
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 5, 8)
    routing = mask_others(torch.tensor([[CAMERA]]), GROUPS)
    BACKENDS['grouped'](q, k, v, routing=routing, present=None).sum().backward()
    assert not v.grad[:, :, :3].any()
    assert v.grad[:, :, 3:].any()


def test_a_new_choice_masks_nothing():
    generator = AttentionBiasGenerator(form='hard')
    assert list(generator.parameters()) == []
    assert not generator(torch.zeros(2, 4, 2), groups=GROUPS, windows=()).dense().any()


@pytest.mark.parametrize(
    ('share', 'expert'),
    [
        ([1.0, 1.0], BOTH),
        ([0.5, 1.0], BOTH),  # a part of a sensor is left
        ([0.0, 1.0], CAMERA),
        ([1.0, 0.04], LIDAR),  # black, but for a border without source
        ([0.0, 0.0], BOTH),
    ],
)
def test_the_label_is_the_sensor_that_is_left(share, expert):
    logits = torch.randn(1, 3, 2)
    health = GroupHealth(torch.tensor([[share]]), torch.ones(1, 1, 2, dtype=torch.bool))
    experts = torch.cat([torch.zeros(3, 1), logits[0]], dim=1)
    expected = -experts.log_softmax(dim=1)[:, expert].mean()
    torch.testing.assert_close(choice_loss(logits, health), expected)


def test_queries_may_have_labels_of_their_own():
    share = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    choice_loss(logits, GroupHealth(share, torch.ones_like(share, dtype=torch.bool))).backward()
    expected = torch.tensor([[[1 / 6, -1 / 3], [1 / 6, 1 / 6]]])
    torch.testing.assert_close(logits.grad, expected)
