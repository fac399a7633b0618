"""A hard choice of expert: what is chosen, what is masked, and what the choice learns."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_head import (
    assert_equal_boxes,
    make_head,
    random_batch,
    routed_head,
    spy,
    with_health,
)

from projects.cmt_aqr.aqr.ablations.hard_choice import (
    BOTH,
    CAMERA,
    LIDAR,
    MASKED,
    HardChoiceRouter,
    HardChoiceRouting,
)
from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.transformer import TokenGroups
from projects.cmt_aqr.transformer.backends import BACKENDS

GROUPS = TokenGroups.of([3, 2])
LOGITS = {BOTH: [0.0, 0.0], LIDAR: [0.5, 0.1], CAMERA: [-3.0, 0.1]}


def hard_head(**changes):
    weights = {'type': 'ExpertLogits', **changes.pop('weights', {})}
    options = {'routing': 'HardChoiceRouting', 'type': 'HardChoiceRouter', **changes}
    return routed_head(**options, weights=weights)


def test_the_largest_logit_wins_and_a_tie_is_for_both():
    form = HardChoiceRouting(num_heads=1)
    assert list(form.parameters()) == []
    logits = [[0.0, 0.0], [-1.0, -2.0], [0.5, 0.1], [-3.0, 0.1], [0.0, -1.0]]
    bias = form.group_bias(torch.tensor([logits]))
    assert bias.tolist() == [[[0, 0], [0, 0], [0, MASKED], [MASKED, 0], [0, 0]]]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=['single', 'half'])
def test_attention_is_that_to_the_chosen_sensor_alone(backend, dtype):
    q, k, v = (8 * torch.randn(1, 2, count, 128, dtype=dtype) for count in (3, 5, 5))
    k[..., :3, :] += 4  # the logits of the sensors lie far apart
    routing = HardChoiceRouting(num_heads=2)(torch.tensor([[*LOGITS.values()]]), groups=GROUPS)
    out = BACKENDS[backend](q, k, v, routing=routing, token_mask=None)
    for query, tokens in enumerate((slice(0, 5), slice(0, 3), slice(3, 5))):
        alone = F.scaled_dot_product_attention(
            q[:, :, query : query + 1], k[:, :, tokens], v[:, :, tokens]
        )
        tolerance = 1e-4 if dtype is torch.float32 else 3e-2
        torch.testing.assert_close(
            out[:, :, query : query + 1], alone, atol=tolerance, rtol=tolerance
        )


def test_masked_tokens_get_no_gradient():
    v = torch.randn(1, 2, 5, 8, requires_grad=True)
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 5, 8)
    routing = HardChoiceRouting(num_heads=2)(torch.tensor([[LOGITS[CAMERA]]]), groups=GROUPS)
    BACKENDS['grouped'](q, k, v, routing=routing, token_mask=None).sum().backward()
    assert not v.grad[:, :, :3].any()
    assert v.grad[:, :, 3:].any()


@pytest.mark.parametrize(
    ('health', 'expert'),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.0], BOTH),
        ([0.0, 0.5, 1.0, 1.0, 1.0], BOTH),  # a part of a sensor is left
        ([0.0, 0.0, 0.0, 1.0, 1.0], CAMERA),
        ([1.0, 1.0, 1.0, 0.08, 0.0], LIDAR),  # black, except for a border without source
        ([0.0, 0.0, 0.0, 0.0, 0.0], BOTH),
    ],
)
def test_the_label_is_the_sensor_that_is_left_and_denoising_queries_do_not_count(health, expert):
    logits = torch.randn(1, 3, 2)
    tokens = SimpleNamespace(token_mask=None)
    output = SimpleNamespace(weights=logits, tokens=tokens, groups=GROUPS, denoising_slots=1)
    router = hard_head().router
    loss = HardChoiceRouter.reliability_loss(router, output, torch.tensor([health]))
    experts = torch.cat([torch.zeros(2, 1), logits[0, 1:]], dim=1)
    torch.testing.assert_close(loss, -experts.log_softmax(dim=1)[:, expert].mean())


@torch.no_grad()
def test_a_new_choice_leaves_every_box():
    routed, plain = hard_head().eval(), make_head().eval()
    routed.load_state_dict(plain.state_dict(), strict=False)
    batch = random_batch()
    assert_equal_boxes(routed.predict(*batch), plain.predict(*batch))


@torch.no_grad()
@pytest.mark.parametrize('chosen', ['lidar', 'camera'])
def test_a_chosen_sensor_is_seen_alone(chosen):
    head = hard_head().eval()
    head.router.aqr_weight_generator.to_weight[chosen].bias.fill_(0.1)
    bev, images, samples = random_batch()
    alone = (bev, None) if chosen == 'lidar' else (None, images)
    # Queries keep the embedding of both sensors: only the tokens are those of one.
    cameras = batch_cameras([sample.metainfo for sample in samples], images)
    query_pos = head.embed_queries(head.reference(2, None), cameras)
    tokens = head.tokenize(*alone, cameras)
    expected = head.transformer(query_pos, tokens=tokens.features, token_pos=tokens.position).hidden
    seen = []
    head.transformer.register_forward_hook(lambda _, args, states: seen.append(states.hidden))
    head.predict(bev, images, samples)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def test_it_learns_from_its_labels_alone():
    head = hard_head()
    losses = head.loss(*with_health(random_batch(), lidar=0.0))
    assert losses['loss_reliability'].item() == pytest.approx(np.log(3))
    boxes = sum(value for name, value in losses.items() if name != 'loss_reliability')
    linear = head.router.aqr_weight_generator.to_weight
    boxes.backward(retain_graph=True)
    assert all(p.grad is None for p in linear.parameters())
    losses['loss_reliability'].backward()
    assert {name for name, p in head.named_parameters() if p.grad is None} == set()
    assert linear['camera'].bias.grad < 0 < linear['lidar'].bias.grad


@torch.no_grad()
@pytest.mark.parametrize('missing', ['lidar', 'camera'])
def test_a_sensor_that_is_absent_is_never_chosen(missing):
    head = hard_head().eval()
    linear = head.router.aqr_weight_generator.to_weight
    for sensor, value in {'lidar': -5.0, 'camera': -5.0, missing: 5.0}.items():
        linear[sensor].bias.fill_(value)
    seen = spy(head.transformer)
    bev, images, samples = random_batch()
    head.predict(*((None, images) if missing == 'lidar' else (bev, None)), samples)
    assert not seen['routing'].group_bias.any()


@pytest.mark.parametrize(
    ('change', 'given'),
    [
        ({'routing': 'GateRouting'}, 'a GateRouting and 1.0'),
        ({'weights': {'type': 'AQRWeightGenerator'}}, 'AQRWeightGenerator'),
        ({'weights': {'groups': 'camera'}}, "groups='camera'"),
        ({'reliability_weight': 0.0}, 'a HardChoiceRouting and 0.0'),
    ],
)
def test_parts_that_do_not_fit_are_named(change, given):
    with pytest.raises(ValueError, match=f'a hard choice takes .* given are .*{given}'):
        hard_head(**change)
