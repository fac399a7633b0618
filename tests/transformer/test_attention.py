"""Attention against torch's own module."""

import pytest
import torch
from torch import nn

from projects.cmt_aqr.transformer import (
    BiasRouting,
    CrossAttention,
    MultiheadAttention,
    TokenGroups,
)
from projects.cmt_aqr.transformer.backends import BACKENDS


@pytest.fixture
def pair():
    ours = MultiheadAttention(16, num_heads=4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    ours.load_state_dict(theirs.state_dict())  # also shows that the names agree
    return ours, theirs


def test_equals_torch(pair):
    ours, theirs = pair
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    expected = theirs(query, key, value, need_weights=False)[0]
    torch.testing.assert_close(ours(query, key, value), expected)


def test_boolean_mask_hides_keys(pair):
    ours, _ = pair
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask = torch.arange(7)[None] < 4
    torch.testing.assert_close(
        ours(query, key, key, attn_mask=mask), ours(query, key[:, :4], key[:, :4])
    )


def test_float_mask_is_added_to_the_logits(pair):
    ours, theirs = pair
    query, key = torch.randn(1, 5, 16), torch.randn(1, 7, 16)
    bias = torch.randn(5, 7)
    expected = theirs(query, key, key, attn_mask=bias, need_weights=False)[0]
    torch.testing.assert_close(ours(query, key, key, attn_mask=bias), expected)


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match=r'num_heads \(3\) must divide embed_dims \(16\)'):
        MultiheadAttention(16, num_heads=3)


def make_bias(queries=3, keys=9, num_groups=2, batch_size=2):
    weights = torch.randn(batch_size, queries, num_groups)
    return BiasRouting(num_heads=4)(weights, groups=groups_of(keys, num_groups))


def groups_of(keys, num_groups):
    """As even as they can be."""
    return TokenGroups.of((torch.arange(keys) * num_groups // keys).bincount().tolist())


@pytest.mark.parametrize('num_groups', [2, 7])
@pytest.mark.parametrize('biased', [False, True])
def test_the_attention_share_of_groups_is_the_sum_of_their_weights(num_groups, biased):
    attention = CrossAttention(16, num_heads=4)
    query, key = torch.randn(2, 3, 16), torch.randn(2, 9, 16)
    groups = groups_of(9, num_groups)
    bias = make_bias() if biased else None
    token_mask = torch.tensor([[True] * 9, [True] * 5 + [False] * 4])
    q, k = attention.project(query, key)
    logits = q @ k.transpose(-1, -2) / 2 + (bias.form.dense_bias(bias)[:, None] if biased else 0)
    weights = logits.masked_fill(~token_mask[:, None, None], -torch.inf).softmax(-1)
    parts = weights.split(groups.sizes, dim=-1)
    expected = torch.stack([part.sum(dim=-1) for part in parts], dim=-1)
    share = attention.attention_share(query, key, groups, routing=bias, token_mask=token_mask)
    torch.testing.assert_close(share, expected)


def test_without_a_bias_cross_attention_is_plain():
    cross, plain = CrossAttention(16, num_heads=4), MultiheadAttention(16, num_heads=4)
    plain.load_state_dict(cross.state_dict())
    query, key = torch.randn(2, 3, 16), torch.randn(2, 9, 16)
    assert torch.equal(cross(query, key, key), plain(query, key, key))
    token_mask = (torch.arange(9) < 4).expand(2, -1)
    torch.testing.assert_close(
        cross(query, key, key, token_mask=token_mask), plain(query, key[:, :4], key[:, :4])
    )


@pytest.mark.parametrize('backend', ['auto', *BACKENDS])
def test_every_back_end_by_its_name(backend):
    attention = CrossAttention(16, num_heads=4, backend=backend)
    query, key, bias = torch.randn(2, 3, 16), torch.randn(2, 9, 16), make_bias()
    masked = MultiheadAttention(16, num_heads=4)
    masked.load_state_dict(attention.state_dict())
    expected = masked(query, key, key, attn_mask=bias.form.dense_bias(bias)[:, None])
    torch.testing.assert_close(attention(query, key, key, routing=bias), expected)


def test_an_unknown_back_end_is_named():
    with pytest.raises(ValueError, match=r"attention is 'flex'; it must be 'auto' or one of"):
        CrossAttention(16, num_heads=4, backend='flex')


def test_dropout_in_cross_attention_is_refused():
    attention = CrossAttention(16, num_heads=4)
    attention.dropout = 0.1
    x = torch.randn(2, 9, 16)
    with pytest.raises(ValueError, match=r'dropout is 0.1; cross-attention drops no weights'):
        attention(x, x, x)


def test_the_share_of_groups_of_another_length_is_refused():
    attention = CrossAttention(32, num_heads=4)
    groups = TokenGroups.of([3, 4])
    with pytest.raises(ValueError, match='groups of 7 tokens for 5 keys'):
        attention.attention_share(torch.randn(1, 2, 32), torch.randn(1, 5, 32), groups)
