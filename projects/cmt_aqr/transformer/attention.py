"""Multi-head attention on ``scaled_dot_product_attention``.

Shapes: B batch, Q queries, K keys, C channels, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameter names of ``torch.nn.MultiheadAttention``.

    The names are kept so that released CMT checkpoints load. The library's module is not used
    because it hides the projected queries and keys, to which the router's bias is attached.

    Args:
        embed_dims: C; must be a multiple of ``num_heads``.
        num_heads: H.
        dropout: probability of dropping an attention weight during training.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dims``.
    """

    def __init__(self, embed_dims: int, *, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'num_heads ({num_heads}) must divide embed_dims ({embed_dims})')
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dims, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attend from queries to keys.

        Args:
            query: (B, Q, C), with its position embedding added.
            key: (B, K, C), likewise.
            value: (B, K, C).
            mask: broadcast to (B, H, Q, K); bool, True where a query may look, or float, added
                to the logits.

        Returns:
            (B, Q, C).
        """
        q, k, v = self.project(query, key, value)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def project(self, *inputs: Tensor) -> list[Tensor]:
        """Query, key and value (B, N, C), or the first of them, each to (B, H, N, C / H)."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        return [
            self._split_heads(F.linear(x, weight, bias))
            for x, weight, bias in zip(inputs, weights, biases, strict=False)
        ]

    @torch.no_grad()
    def mass(
        self, query: Tensor, key: Tensor, groups: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """How much of each query's attention falls on each group of keys.

        Args:
            query: (B, Q, C), with its position embedding added.
            key: (B, K, C), likewise.
            groups: (K,), group of every key, counted from 0.
            mask: as in :meth:`forward`.

        Returns:
            (B, H, Q, groups), with the sum 1.
        """
        q, k = self.project(query, key)
        membership = F.one_hot(groups).to(q)  # attention to these values sums up the weights
        num_groups = membership.shape[1]
        # Fused kernels want values as wide as keys.
        padded = F.pad(membership, (0, max(0, k.shape[-1] - num_groups)))
        value = padded.expand(*k.shape[:2], -1, -1)
        return F.scaled_dot_product_attention(q, k, value, attn_mask=mask)[..., :num_groups]

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, H, N, C / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
