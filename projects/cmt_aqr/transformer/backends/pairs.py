"""Products of queries and tokens at chosen pairs of them alone, and sums over these pairs.

These are products with a sparse Q x K matrix. ``embedding_bag`` computes the sums without a copy of
the gathered rows, and the backward pass of its weights the products.

Shapes: B batch, H heads, Q queries, K tokens, F channels, N pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Bags(NamedTuple):
    """For each head and each row of a table, the rows of another table that it is paired with."""

    rows: Tensor
    """(H * N,): rows of the other table (B * H * columns), bag by bag"""
    offsets: Tensor
    """(H * B * rows,): where each bag starts"""
    bag: Tensor
    """(H * N,): the bag of each"""

    @classmethod
    def of(
        cls, sample: Tensor, row: Tensor, column: Tensor, shape: tuple[int, int, int, int]
    ) -> Bags:
        """Bags of pairs (N,) sorted by sample and row; ``shape`` is B, H, rows, columns."""
        batch_size, num_heads, num_rows, num_columns = shape
        head = torch.arange(num_heads, device=row.device)[:, None]
        rows = (sample * num_heads + head) * num_columns + column
        owner = sample * num_rows + row
        starts = torch.searchsorted(owner, torch.arange(batch_size * num_rows, device=row.device))
        return cls(
            rows.flatten(),
            (starts + head * len(row)).flatten(),
            (owner + head * batch_size * num_rows).flatten(),
        )


class Pairs(NamedTuple):
    """Pairs of queries and tokens."""

    order: Tensor
    """(N,): of the pairs as given, sorted by sample and query"""
    token_order: Tensor
    """(N,): of the pairs so sorted, sorted by sample and token"""
    by_query: Bags
    """tokens of every query"""
    by_token: Bags
    """queries of every token"""

    @classmethod
    def of(
        cls, sample: Tensor, query: Tensor, token: Tensor, *, shape: tuple[int, int, int, int]
    ) -> Pairs:
        """From sample, query and token (N,) of each pair; ``shape`` is B, H, Q, K."""
        batch_size, num_heads, num_queries, num_tokens = shape
        order = (sample * num_queries + query).argsort()
        sample, query, token = sample[order], query[order], token[order]
        token_order = (sample * num_tokens + token).argsort()
        return cls(
            order,
            token_order,
            Bags.of(sample, query, token, shape),
            Bags.of(
                sample[token_order],
                token[token_order],
                query[token_order],
                (batch_size, num_heads, num_tokens, num_queries),
            ),
        )


def pair_dot(q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
    """Product of query and key of each pair.

    Args:
        q: (B, H, Q, F).
        k: (B, H, K, F).
        pairs: N of them.

    Returns:
        (H, N), sorted by sample and query.
    """
    return _PairDot.apply(q, k, pairs)


def pair_sum(weight: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
    """Weighted sum of the values of each query's tokens.

    Args:
        weight: (H, N), sorted by sample and query.
        v: (B, H, K, F).
        pairs: N of them.

    Returns:
        (B, H, Q, F), zero for a query in no pair.
    """
    return _PairSum.apply(weight, v, pairs)


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(q, k)
        ctx.pairs = pairs
        return _dot(q, k, pairs.by_query)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (q, k), pairs = ctx.saved_tensors, ctx.pairs
        grad_q = _sum(grad, k, pairs.by_query)
        return grad_q, _sum(grad[:, pairs.token_order], q, pairs.by_token), None


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(weight, v)
        ctx.pairs = pairs
        return _sum(weight, v, pairs.by_query)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight, v), pairs = ctx.saved_tensors, ctx.pairs
        grad_weight = _dot(grad, v, pairs.by_query)
        return grad_weight, _sum(weight[:, pairs.token_order], grad, pairs.by_token), None


def _sum(weight: Tensor, table: Tensor, bags: Bags) -> Tensor:
    """Weights (H, N) and (B, H, columns, F) -> (B, H, rows, F)."""
    batch_size, num_heads, _, channels = table.shape
    sums = F.embedding_bag(
        bags.rows,
        table.reshape(-1, channels),
        bags.offsets,
        mode='sum',
        per_sample_weights=weight.flatten(),
    )
    return sums.view(num_heads, batch_size, -1, channels).transpose(0, 1)


def _dot(rows: Tensor, table: Tensor, bags: Bags) -> Tensor:
    """(B, H, rows, F) and (B, H, columns, F) -> (H, N)."""
    num_heads, channels = rows.shape[1], rows.shape[-1]
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows.transpose(0, 1).reshape(-1, channels),
        table.reshape(-1, channels),
        bags.rows,
        bags.offsets,
        bags.bag,
        0,  # the mode 'sum'
    )
    return products.view(num_heads, -1)
