"""The decoder of CMT (Yan et al., ICCV 2023), after DETR's (Carion et al., ECCV 2020).

Shapes: B batch, Q queries, K tokens, C channels, L layers. Attribute names follow the released
state dict.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .attention import CrossAttention, MultiheadAttention
from .routing import Routing


class ResidualAttention(nn.Module):
    """Attention, dropout and the residual connection."""

    def __init__(self, attention: MultiheadAttention, *, dropout: float) -> None:
        super().__init__()
        self.attn = attention
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, *, query_pos: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> Tensor:
        """Attend; ``options`` are the keyword arguments of the attention."""
        out = self.attn(query + query_pos, key, value, **options)
        return query + self.dropout(out)


class FeedForward(nn.Module):
    """Two linear layers with a residual connection."""

    def __init__(self, embed_dims: int, *, hidden_dims: int) -> None:
        super().__init__()
        expand = nn.Sequential(nn.Linear(embed_dims, hidden_dims), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(expand, nn.Linear(hidden_dims, embed_dims))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DecoderLayer(nn.Module):
    """Self-attention among queries, cross-attention to tokens, feed-forward, each then a norm.

    Cross-attention has no dropout of weights: released CMT set it to 0.1, but never applied it.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        attention: str = 'auto',
    ) -> None:
        super().__init__()
        self_attention = MultiheadAttention(embed_dims, num_heads=num_heads, dropout=dropout)
        cross_attention = CrossAttention(embed_dims, num_heads=num_heads, backend=attention)
        self.attentions = nn.ModuleList(
            ResidualAttention(each, dropout=dropout) for each in (self_attention, cross_attention)
        )
        self.ffns = nn.ModuleList([FeedForward(embed_dims, hidden_dims=feedforward_channels)])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        *,
        query_pos: Tensor,
        key: Tensor,
        value: Tensor,
        self_attn_mask: Tensor | None = None,
        beside: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """Refine the queries; ``options`` are the keyword arguments of cross-attention.

        Args:
            beside: further queries (B, P, C) that these attend to, and their embedding.
        """
        self_attention, cross_attention = self.attentions
        key_query, key_pos = query, query_pos
        if beside is not None:
            key_query = torch.cat([beside[0], query], dim=1)
            key_pos = torch.cat([beside[1], query_pos], dim=1)
        query = self_attention(
            query,
            query_pos=query_pos,
            key=key_query + key_pos,
            value=key_query,
            attn_mask=self_attn_mask,
        )
        query = self.norms[0](query)
        query = cross_attention(query, query_pos=query_pos, key=key, value=value, **options)
        query = self.norms[1](query)
        return self.norms[2](self.ffns[0](query))


class DecoderStates(NamedTuple):
    """Queries of all decoder layers."""

    query_pos: Tensor
    """(B, Q, C), query embedding"""
    inputs: list[Tensor]
    """L of (B, Q, C): queries that enter each layer"""
    hidden: Tensor
    """(L, B, Q, C): normalised output of each layer"""


class CmtTransformer(nn.Module):
    """A stack of decoder layers that returns the queries before and after each layer.

    Args:
        embed_dims: C.
        num_layers: L.
        num_heads: H, of both attentions.
        feedforward_channels: width of the feed-forward network.
        dropout: of self-attention's weights and of both attentions' outputs.
        attention: back end of cross-attention with a router, see
            :class:`~projects.cmt_aqr.transformer.attention.CrossAttention`.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        dropout: float = 0.1,
        attention: str = 'auto',
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        layers = (
            DecoderLayer(
                embed_dims,
                num_heads=num_heads,
                feedforward_channels=feedforward_channels,
                dropout=dropout,
                attention=attention,
            )
            for _ in range(num_layers)
        )
        # Released checkpoints call them `decoder.layers` and `decoder.post_norm`.
        self.decoder = nn.ModuleDict(
            {'layers': nn.ModuleList(layers), 'post_norm': nn.LayerNorm(embed_dims)}
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    @property
    def layers(self) -> nn.ModuleList:
        """The L decoder layers."""
        return self.decoder['layers']

    def forward(
        self,
        query_pos: Tensor,
        *,
        tokens: Tensor,
        token_pos: Tensor,
        self_attn_mask: Tensor | None = None,
        routing: Routing | None = None,
        token_mask: Tensor | None = None,
        kernel_dtype: torch.dtype | None = None,
        query: Tensor | None = None,
        beside: DecoderStates | None = None,
    ) -> DecoderStates:
        """Decode queries.

        Args:
            query_pos: (B, Q, C), query embedding.
            tokens: (B, K, C).
            token_pos: (B, K, C), position embedding of the tokens.
            self_attn_mask: (Q, Q), bool, True where a query may attend to another.
            routing: of all layers; ``None`` is plain CMT. This and the next two are those of
                :class:`~projects.cmt_aqr.transformer.attention.CrossAttention`.
            token_mask: (B, K), bool.
            kernel_dtype: type in which the kernels compute.
            query: (B, Q, C), what enters the first layer; ``None`` for zeros.
            beside: states of other queries, decoded before; these queries attend to them in every
                layer, and not the other way around.
        """
        query = torch.zeros_like(query_pos) if query is None else query
        key = tokens + token_pos
        inputs, outputs = [], []
        others = [None] * len(self.layers)
        if beside is not None:
            others = [(x, beside.query_pos) for x in beside.inputs]
        for layer, other in zip(self.layers, others, strict=True):
            inputs.append(query)
            query = layer(
                query,
                query_pos=query_pos,
                key=key,
                value=tokens,
                self_attn_mask=self_attn_mask,
                routing=routing,
                token_mask=token_mask,
                kernel_dtype=kernel_dtype,
                beside=other,
            )
            outputs.append(self.decoder['post_norm'](query))
        return DecoderStates(query_pos, inputs, torch.stack(outputs))
