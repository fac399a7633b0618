"""Multi-head attention on ``scaled_dot_product_attention``, plain or routed.

Shapes: B batch, Q queries, K keys, C channels, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backends import BACKENDS, HALF_PRECISION, choose_backend
from .cpu_dropout_attention import cpu_dropout_attention
from .kernels import scaled_dot_product_attention
from .routing import Routing
from .token_groups import TokenGroups


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameter names of ``torch.nn.MultiheadAttention``.

    The names are kept so that released CMT checkpoints load. The library's module is not used
    because it hides the projected queries and keys, to which a router's bias is attached.

    Args:
        embed_dims: C.
        num_heads: H, a divisor of C.
        dropout: probability of dropping an attention weight during training.
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
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attend from queries (B, Q, C) to keys and values (B, K, C); the output is (B, Q, C).

        Position embeddings are already added to queries and keys. ``attn_mask`` is broadcast to
        (B, H, Q, K): bool, True where a query may attend, or float, added to the logits.
        """
        q, k, v = self.project(query, key, value)
        dropout = self.dropout if self.training else 0.0
        learned_mask = attn_mask is not None and attn_mask.requires_grad
        if dropout and q.device.type == 'cpu' and not learned_mask:
            out = cpu_dropout_attention(q, k, v, dropout=dropout, attn_mask=attn_mask)
        else:
            out = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def project(self, *inputs: Tensor) -> list[Tensor]:
        """Project query, key and value, or the first of them, from (B, N, C) to (B, H, N, C/H)."""
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        return [
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(inputs, weights, biases, strict=False)
        ]


class CrossAttention(MultiheadAttention):
    """Attention of queries to the tokens of a sample, optionally routed; without dropout.

    Args:
        embed_dims: C.
        num_heads: H, a divisor of C.
        backend: implementation of routed attention, one of
            :data:`~projects.cmt_aqr.transformer.backends.BACKENDS`, or ``auto``.
    """

    def __init__(self, embed_dims: int, *, num_heads: int, backend: str = 'auto') -> None:
        super().__init__(embed_dims, num_heads=num_heads)
        if backend not in ('auto', *BACKENDS):
            raise ValueError(
                f"attention is {backend!r}; it must be 'auto' or one of {list(BACKENDS)}"
            )
        self.backend = backend

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        routing: Routing | None = None,
        token_mask: Tensor | None = None,
        kernel_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Attend from queries (B, Q, C) to tokens (B, K, C); the output is (B, Q, C).

        Args:
            query: with its position embedding added.
            key: with its position embedding added.
            value: the tokens.
            routing: the routing request; ``None`` for plain attention.
            token_mask: (B, K), bool: tokens that a sample has; ``None`` for all.
            kernel_dtype: type in which the kernels compute, if their back end is exact enough in
                half precision; ``None`` for the type of the projected queries.

        Raises:
            ValueError: the back end cannot compute this request, or dropout was set.
        """
        q, k, v = self.project(query, key, value)
        out = self._attend(q, k, v, routing, token_mask, kernel_dtype)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def attention_share(
        self,
        query: Tensor,
        key: Tensor,
        groups: TokenGroups,
        *,
        routing: Routing | None = None,
        token_mask: Tensor | None = None,
        kernel_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """(B, H, Q, M): share of each query's attention on each of the M groups of tokens.

        The shares of a query add up to 1, except under a gate. The other arguments are those of
        :meth:`forward`.

        Raises:
            ValueError: the groups have another number of tokens than ``key``; PyTorch's kernels
                would read beyond the end.
        """
        if groups.num_tokens != key.shape[1]:
            raise ValueError(f'groups of {groups.num_tokens} tokens for {key.shape[1]} keys')
        q, k = self.project(query, key)
        membership = groups.one_hot(like=q)  # attention to these values gives the sums of weights
        num_groups = len(groups.sizes)
        # Fused kernels want values as wide as keys.
        padded = F.pad(membership, (0, max(0, k.shape[-1] - num_groups)))
        value = padded.expand(*k.shape[:2], -1, -1)
        return self._attend(q, k, value, routing, token_mask, kernel_dtype)[..., :num_groups]

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        routing: Routing | None,
        token_mask: Tensor | None,
        kernel_dtype: torch.dtype | None,
    ) -> Tensor:
        if self.dropout:
            raise ValueError(
                f'dropout is {self.dropout}; cross-attention drops no weights: it must be 0'
            )
        backend = self.backend
        if routing is not None and backend == 'auto':
            backend = choose_backend(routing, q.device)
        dtype = q.dtype
        if kernel_dtype is not None and (routing is None or backend in HALF_PRECISION):
            q, k, v = (x.to(kernel_dtype) for x in (q, k, v))
        if routing is None:
            attn_mask = None if token_mask is None else token_mask[:, None, None]
            out = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        else:
            out = BACKENDS[backend](q, k, v, routing=routing, token_mask=token_mask)
        return out.to(dtype)
