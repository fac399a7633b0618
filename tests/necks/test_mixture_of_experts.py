"""The mixture of experts against a loop over tokens, its balance and its choices."""

import pytest
import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.testing import assert_close

from projects.cmt_aqr.auxiliary_losses import take_auxiliary_losses
from projects.cmt_aqr.necks import MoEProjector


def moe(**options) -> MoEProjector:
    config = dict(type='MoEProjector', in_channels=6, out_channels=4, num_experts=3, top_k=2)
    return MODELS.build({**config, **options})


def one_by_one(neck: MoEProjector, x: Tensor) -> Tensor:
    """What a loop over tokens and their best experts gives, without noise."""
    out = []
    for token in neck.layers(x.movedim(1, -1)).flatten(0, -2):
        best = neck.gate(token).topk(neck.top_k)
        mixed = torch.zeros_like(token)
        for weight, expert in zip(best.values.softmax(0), best.indices.tolist(), strict=True):
            e = neck.experts
            hidden = nn.functional.gelu(token @ e.weight1[expert] + e.bias1[expert, 0])
            mixed = mixed + weight * (hidden @ e.weight2[expert] + e.bias2[expert, 0])
        out.append(neck.norm(token + mixed))
    return torch.stack(out).view(len(x), *x.shape[2:], -1).movedim(-1, 1)


@pytest.mark.parametrize('top_k', [1, 2, 3])
def test_equals_a_loop_over_tokens(top_k):
    neck = moe(top_k=top_k).eval()
    x = torch.randn(2, 6, 3, 5)
    assert_close(neck([x])[0], one_by_one(neck, x))
    assert take_auxiliary_losses(neck) == {}
    assert neck.load.take() == [0, 0, 0]


def test_noise_is_added_in_training_only():
    neck = moe(noise=5.0)
    x = torch.randn(2, 6, 3, 5)
    noisy = [neck.train()([x])[0] for _ in range(2)]
    assert not torch.equal(*noisy)
    plain = [neck.eval()([x])[0] for _ in range(2)]
    assert torch.equal(*plain)
    neck.noise = 0
    assert_close(neck.train()([x])[0], plain[0])


def test_balance_of_the_load():
    """Equal loads give the weight of the loss; the same two experts for all give E / 2 of it."""
    neck = moe(noise=0.0, num_experts=4, balance_weight=0.1).train()
    logits = torch.eye(4).repeat(3, 1)  # each expert is the best one of three tokens
    logits = 30 * (logits + logits.roll(1, dims=1))
    neck._weigh(logits)
    assert_close(take_auxiliary_losses(neck)['loss_load_balance'], torch.tensor(0.1))
    assert neck.load.take() == pytest.approx([0.25] * 4)
    same = torch.tensor([30.0, 30, 0, 0]).expand(12, 4)
    neck._weigh(same)
    assert_close(take_auxiliary_losses(neck)['loss_load_balance'], torch.tensor(0.2))
    assert neck.load.take() == pytest.approx([0.5, 0.5, 0, 0])


def test_the_balance_loss_revives_a_dead_expert():
    torch.manual_seed(1)
    neck = moe(noise=0.0, num_experts=2, top_k=1).train()
    x = torch.randn(8, 6, 4, 4)
    x[:, 0] = 1
    with torch.no_grad():  # all tokens have a positive first channel, which the first expert likes
        neck.layers[0].weight[0] = torch.tensor([5.0, 0, 0, 0, 0, 0])
        neck.gate.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    optimizer = torch.optim.Adam([neck.gate.weight], lr=0.05)
    neck([x])
    assert neck.load.take() == [1, 0]
    for _ in range(100):
        optimizer.zero_grad()
        neck([x])
        take_auxiliary_losses(neck)['loss_load_balance'].backward()
        optimizer.step()
    neck.load.take()
    neck([x])
    assert min(neck.load.take()) > 0.3


def test_every_parameter_learns():
    neck = moe().train()
    (out,) = neck([torch.randn(2, 6, 8, 8)])
    (out.square().sum() + sum(take_auxiliary_losses(neck).values())).backward()
    dead = [n for n, p in neck.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert dead == ['norm.bias'] or dead == []


def test_the_gate_knows_the_layer():
    neck = moe(
        type='AdaptiveMoEProjector',
        num_layers=2,
        combine=dict(type='AdaptiveLayers', num_layers=2, channels=6, top_k=1),
    ).eval()
    tokens, layer = torch.randn(2, 3, 5, 6), torch.tensor([0, 1])
    projected = neck.layers(tokens)
    assert_close(neck.gate_logits(projected, layer), neck.gate(projected))
    neck.layer_logits.weight.data[1] = torch.tensor([0.0, 9, 0])
    found = neck.gate_logits(projected, layer) - neck.gate(projected)
    assert_close(found[0], torch.zeros(3, 5, 3))
    assert_close(found[1], torch.tensor([0.0, 9, 0]).expand(3, 5, 3))
    assert neck([torch.randn(2, 6, 3, 5)] * 2)[0].shape == (2, 4, 3, 5)
    with pytest.raises(ValueError, match='needs to know the chosen layer'):
        neck.gate_logits(projected, None)


def test_wrong_numbers():
    with pytest.raises(ValueError, match='top_k 4 is not in 1 to num_experts 3'):
        moe(top_k=4)
