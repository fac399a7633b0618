"""Products of queries and tokens at chosen pairs only, and weighted sums over these pairs.

These are products with a sparse (Q, K) matrix. ``embedding_bag`` computes the sums without a copy
of the gathered rows, and the backward pass of its weights computes the products.

Shapes: B batch, H heads, R rows (queries), K columns (tokens), F channels, N pairs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .kernels import pair_products


@dataclass(frozen=True, eq=False)
class SparsePairs:
    """Non-zero places of a sparse matrix for each sample of a batch, the same for all heads.

    They are sorted by sample and row.
    """

    order: Tensor
    """(N,): position of each pair in the list from which the pairs were sorted"""
    sample: Tensor
    """(N,): sample of each pair, ascending"""
    row: Tensor
    """(N,): row of each pair, counted through all samples, ascending"""
    column: Tensor
    """(N,): column of each pair, counted within its sample"""
    shape: tuple[int, int, int]
    """B, R, K"""
    _tables: dict = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, sample: Tensor, row: Tensor, column: Tensor, *, shape: tuple[int, int, int]
    ) -> SparsePairs:
        """Pairs (N,) in any order, rows and columns counted within a sample; shape is B, R, K."""
        row = sample * shape[1] + row
        order = row.argsort()
        return cls(order, sample[order], row[order], column[order], shape)

    @functools.cached_property
    def transposed(self) -> SparsePairs:
        """The same pairs sorted by sample and column, for gradients with respect to columns."""
        batch_size, rows, columns = self.shape
        row = self.row - self.sample * rows
        return self.of(self.sample, self.column, row, shape=(batch_size, columns, rows))

    @property
    def num_rows(self) -> int:
        """B * R."""
        return self.shape[0] * self.shape[1]

    @functools.cached_property
    def offsets(self) -> Tensor:
        """(B * R,): index of the first pair of each row."""
        return torch.searchsorted(self.row, torch.arange(self.num_rows, device=self.row.device))

    def by_head(self, num_heads: int, *, shared: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the indices for ``embedding_bag``: one bag for each head and row, heads first.

        Made once for all layers with the same number of heads, of 32-bit integers: half the memory
        and a fifth less time than with 64 bits.

        Args:
            num_heads: H.
            shared: whether all heads take their columns from one table (B * K).

        Returns:
            Place of each pair in a table (B * H * K), (H * N,); first pair of each bag,
            (H * B * R,); bag of each pair, (H * N,).
        """
        key = (num_heads, shared)
        if key not in self._tables:
            head = torch.arange(num_heads, device=self.row.device)[:, None]
            table = self.sample if shared else self.sample * num_heads + head
            place = (table * self.shape[2] + self.column).expand(num_heads, -1)
            offsets = self.offsets + head * len(self.row)
            bag = self.row + head * self.num_rows
            self._tables[key] = tuple(x.flatten().int() for x in (place, offsets, bag))
        return self._tables[key]


def pair_dot(q: Tensor, k: Tensor, pairs: SparsePairs) -> Tensor:
    """(H, N): scalar product of the query (B, H, R, F) and key of each pair.

    Keys are (B, H, K, F), or (B, 1, K, F) if all heads share them.
    """
    if torch.onnx.is_in_onnx_export():
        return _gathered_dot(q, k, pairs)
    return _PairDot.apply(q, k, pairs)


def pair_sum(weight: Tensor, v: Tensor, pairs: SparsePairs) -> Tensor:
    """(B, H, R, F): sum of the values of each query's pairs, by their weight (H, N).

    Values are (B, H, K, F), or (B, 1, K, F) if all heads share them. The sum is zero for a query
    without a pair.
    """
    if torch.onnx.is_in_onnx_export():
        return _gathered_sum(weight, v, pairs)
    return _PairSum.apply(weight, v, pairs)


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, pairs: SparsePairs) -> Tensor:
        ctx.save_for_backward(q, k)
        ctx.pairs = pairs
        return _dot(q, k, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (q, k), pairs = ctx.saved_tensors, ctx.pairs
        return _sum(grad, k, pairs), _column_sum(grad, q, pairs, shared=k.shape[1] == 1), None


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, v: Tensor, pairs: SparsePairs) -> Tensor:
        ctx.save_for_backward(weight, v)
        ctx.pairs = pairs
        return _sum(weight, v, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight, v), pairs = ctx.saved_tensors, ctx.pairs
        return _dot(grad, v, pairs), _column_sum(weight, grad, pairs, shared=v.shape[1] == 1), None


def _column_sum(weight: Tensor, rows: Tensor, pairs: SparsePairs, *, shared: bool) -> Tensor:
    """Weights (H, N) and rows (B, H, R, F) -> sums for the columns (B, H, K, F).

    Columns that heads share, (B, 1, K, F), get the sum over the heads, taken one after another: all
    at once would need H times the memory.
    """
    weight, transposed = weight[:, pairs.transposed.order], pairs.transposed
    if not shared:
        return _sum(weight, rows, transposed)
    heads = zip(weight.split(1), rows.split(1, dim=1), strict=True)
    return sum(_sum(of_head, table, transposed) for of_head, table in heads)


def _sum(weight: Tensor, table: Tensor, pairs: SparsePairs) -> Tensor:
    """Weights (H, N) and columns (B, H or 1, K, F) -> sums for the rows (B, H, R, F)."""
    batch_size, channels = len(table), table.shape[-1]
    place, offsets, _ = pairs.by_head(len(weight), shared=table.shape[1] == 1)
    sums = F.embedding_bag(
        place,
        table.reshape(-1, channels),
        offsets,
        mode='sum',
        per_sample_weights=weight.flatten(),
    )
    return sums.view(len(weight), batch_size, -1, channels).transpose(0, 1)


def _dot(rows: Tensor, table: Tensor, pairs: SparsePairs) -> Tensor:
    """(B, H, R, F) and (B, H or 1, K, F) -> (H, N)."""
    num_heads, channels = rows.shape[1], rows.shape[3]
    products = pair_products(
        rows.transpose(0, 1).reshape(-1, channels),
        table.reshape(-1, channels),
        *pairs.by_head(num_heads, shared=table.shape[1] == 1),
    )
    return products.view(num_heads, -1)


def _gathered_dot(q: Tensor, k: Tensor, pairs: SparsePairs) -> Tensor:
    """:func:`pair_dot` by operators that ONNX has, with a copy of the gathered rows."""
    return (_rows(q)[pairs.row] * _columns(k, pairs)).sum(dim=-1).T


def _gathered_sum(weight: Tensor, v: Tensor, pairs: SparsePairs) -> Tensor:
    """:func:`pair_sum` by operators that ONNX has, with a copy of the gathered rows."""
    batch_size, num_heads, channels = len(v), len(weight), v.shape[-1]
    terms = weight.T[..., None] * _columns(v, pairs)
    sums = terms.new_zeros(pairs.num_rows, num_heads, channels).index_add(0, pairs.row, terms)
    return sums.view(batch_size, -1, num_heads, channels).transpose(1, 2)


def _columns(table: Tensor, pairs: SparsePairs) -> Tensor:
    """(B, H or 1, K, F) -> (N, H or 1, F): the column of each pair."""
    return _rows(table)[pairs.sample * table.shape[2] + pairs.column]


def _rows(table: Tensor) -> Tensor:
    """(B, H, R, F) -> (B * R, H, F)."""
    return table.transpose(1, 2).flatten(0, 1)
