"""After the initialisation each head attends near the query's place, for its own sensor."""

import pytest
import torch
from torch import nn

from projects.cmt_aqr.geometry import bev_grid
from projects.cmt_aqr.transformer import (
    CmtTransformer,
    Position,
    init_local_attention,
    sine_embedding,
)

CHANNELS, SIDE, WAVELENGTHS = 32, 16, (2.0, 1 / 8)


def make(kinds):
    torch.manual_seed(0)
    transformer = CmtTransformer(CHANNELS, num_layers=2, num_heads=4, feedforward_channels=32)
    embeddings = [
        nn.Sequential(nn.Linear(2 * CHANNELS, 64), nn.ReLU(), nn.Linear(64, CHANNELS))
        for _ in range(kinds)
    ]
    return transformer, embeddings


def codes(positions):
    return sine_embedding(positions, CHANNELS, WAVELENGTHS)


def start(transformer, embeddings, **options):
    sample = codes(torch.rand(1024, 2))
    positions = [Position(embedding, sample, 4.0) for embedding in embeddings]
    init_local_attention(transformer, positions, **options)


def attention_near_the_query(transformer, embeddings, layer):
    """(heads, kinds): attention on the nine cells around a query, averaged over queries.

    Each kind of position has its own map of SIDE x SIDE tokens; all stand in one sequence.
    """
    grid = codes(bev_grid(SIDE, SIDE, like=torch.zeros(1)))
    maps = [embedding(grid) for embedding in embeddings]
    attention = transformer.layers[layer].attentions[1].attn
    (query,), (key,) = attention.project(sum(maps)[None], torch.cat(maps)[None])
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
    weights = weights.unflatten(-1, (len(maps), SIDE, SIDE)).unflatten(1, (SIDE, SIDE))
    inner = range(1, SIDE - 1)
    near = [
        weights[:, y, x, :, y - 1 : y + 2, x - 1 : x + 2].sum((-1, -2))
        for y in inner
        for x in inner
    ]
    return torch.stack(near).mean(dim=0)


@pytest.mark.parametrize('layer', [0, 1])
def test_attention_starts_near_the_query_in_the_heads_of_each_kind(layer):
    even = 9 / (2 * SIDE * SIDE)
    before = attention_near_the_query(*make(2), layer)
    torch.testing.assert_close(before, torch.full((4, 2), even), atol=even, rtol=0)
    transformer, embeddings = make(2)
    start(transformer, embeddings)
    after = attention_near_the_query(transformer, embeddings, layer)
    own = torch.stack([after[0, 0], after[1, 0], after[2, 1], after[3, 1]])
    other = torch.stack([after[0, 1], after[1, 1], after[2, 0], after[3, 0]])
    assert own.min() > 10 * even
    assert other.max() < own.min()


def test_heads_that_are_not_split_start_near_the_query_in_both_kinds():
    even = 9 / (2 * SIDE * SIDE)
    transformer, embeddings = make(2)
    start(transformer, embeddings, split_heads=False)
    after = attention_near_the_query(transformer, embeddings, 0)
    assert after.min() > 3 * even


def test_spread_and_channels():
    transformer, embeddings = make(2)
    start(transformer, embeddings)
    first, second = (embedding(codes(torch.rand(4096, 2))) for embedding in embeddings)
    half = CHANNELS // 2
    assert first[:, half:].abs().max() == second[:, :half].abs().max() == 0
    for outputs in (first[:, :half], second[:, half:]):
        torch.testing.assert_close(outputs.std(dim=0).mean(), torch.tensor(4.0), atol=0.2, rtol=0)
        torch.testing.assert_close(outputs.mean(dim=0), torch.zeros(half), atol=0.5, rtol=0)


def test_keys_are_projected_as_queries_and_values_are_left():
    transformer, embeddings = make(1)
    values = [
        layer.attentions[1].attn.in_proj_weight.chunk(3)[2].clone() for layer in transformer.layers
    ]
    start(transformer, embeddings)
    for layer, value in zip(transformer.layers, values, strict=True):
        query, key, after = layer.attentions[1].attn.in_proj_weight.chunk(3)
        assert torch.equal(query, key)
        assert torch.equal(value, after)


def test_no_gradient_of_the_first_step_dwarfs_all_others():
    """Self-attention among zeros gives zeros, which the norm after it divides by almost nothing."""
    shares = []
    for initialised in (False, True):
        transformer, embeddings = make(1)
        if initialised:
            start(transformer, embeddings)
        query_pos, tokens, token_pos = torch.randn(3, 1, 20, CHANNELS)
        states = transformer(query_pos, tokens=tokens, token_pos=token_pos)
        (states.hidden * torch.randn_like(states.hidden)).sum().backward()
        total = torch.stack([p.grad.norm() for p in transformer.parameters()]).norm()
        first = transformer.layers[0].attentions[0].parameters()
        shares.append(float(torch.stack([p.grad.norm() for p in first]).norm() / total))
    assert shares[0] > 0.99
    assert shares[1] < 0.5


def test_self_attention_shrinks_as_the_embeddings_grow():
    transformer, embeddings = make(1)
    before = [
        layer.attentions[0].attn.in_proj_weight.clone().chunk(3) for layer in transformer.layers
    ]
    start(transformer, embeddings)
    for layer, (query, key, value) in zip(transformer.layers, before, strict=True):
        after = layer.attentions[0].attn.in_proj_weight.chunk(3)
        torch.testing.assert_close(after, (query / 4, key / 4, value))
