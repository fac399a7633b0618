"""Products and sums at chosen pairs, against the full matrix."""

import pytest
import torch

from projects.cmt_aqr.transformer.pairs import SparsePairs, pair_dot, pair_sum

BATCH, HEADS, QUERIES, TOKENS, WIDTH = 2, 3, 5, 11, 4


@pytest.fixture
def chosen():
    """Sample, query and token of the pairs in no order; query 0 of each sample is in none."""
    grid = torch.cartesian_prod(torch.arange(BATCH), torch.arange(1, QUERIES), torch.arange(TOKENS))
    return grid[torch.randperm(len(grid))[:40]].T


def tensors(shared=False):
    """Queries, and tokens that all heads share or that each has for itself."""
    return (
        torch.randn(BATCH, heads, n, WIDTH, dtype=torch.double, requires_grad=True)
        for heads, n in ((HEADS, QUERIES), (1 if shared else HEADS, TOKENS))
    )


@pytest.mark.parametrize('shared', [False, True])
def test_products_and_their_gradients(chosen, shared):
    sample, query, token = chosen
    pairs = SparsePairs.of(*chosen, shape=(BATCH, QUERIES, TOKENS))
    q, k = tensors(shared)
    products = pair_dot(q, k, pairs)
    full = (q @ k.transpose(-1, -2))[sample, :, query, token].T[:, pairs.order]
    torch.testing.assert_close(products, full)
    ours, theirs = (torch.autograd.grad(x.sin().sum(), (q, k)) for x in (products, full))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('shared', [False, True])
def test_sums_and_their_gradients(chosen, shared):
    sample, query, token = chosen
    pairs = SparsePairs.of(*chosen, shape=(BATCH, QUERIES, TOKENS))
    weight = torch.randn(HEADS, len(token), dtype=torch.double, requires_grad=True)
    _, v = tensors(shared)
    sums = pair_sum(weight[:, pairs.order], v, pairs)
    matrix = torch.zeros(BATCH, QUERIES, TOKENS, HEADS, dtype=torch.double)
    full = matrix.index_put((sample, query, token), weight.T).movedim(-1, 1) @ v
    torch.testing.assert_close(sums, full)
    assert not sums[:, :, 0].any()
    ours, theirs = (torch.autograd.grad(x.sin().sum(), (weight, v)) for x in (sums, full))
    torch.testing.assert_close(ours, theirs)


def test_no_pairs_at_all():
    none = torch.zeros(0, dtype=torch.long)
    pairs = SparsePairs.of(none, none, none, shape=(BATCH, QUERIES, TOKENS))
    q, k = tensors()
    sums = pair_sum(pair_dot(q, k, pairs), k, pairs)
    assert not sums.any()
    sums.sum().backward()
    assert not k.grad.any()


def test_tables_of_the_heads_are_made_once(chosen):
    pairs = SparsePairs.of(*chosen, shape=(BATCH, QUERIES, TOKENS))
    for each in (pairs, pairs.transposed):
        first = each.by_head(HEADS)
        assert each.by_head(HEADS) is first
        assert each.by_head(1) is not first
        assert each.by_head(HEADS, shared=True) is not first


def test_columns_are_sorted_only_for_a_gradient(chosen):
    pairs = SparsePairs.of(*chosen, shape=(BATCH, QUERIES, TOKENS))
    q, k = (x.detach() for x in tensors())
    pair_sum(pair_dot(q, k, pairs), k, pairs)
    assert 'transposed' not in vars(pairs)
