"""Bridge attention, after VLA-Adapter (Wang et al., 2025, arXiv 2509.09372).

Shapes: B batch, T waypoints, Q object queries, N action queries, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..transformer.attention import MultiheadAttention
from ..transformer.decoder import FeedForward


class BridgeAttention(nn.Module):
    """A block in which waypoint queries read one layer of the detector.

    They attend to themselves, to the object queries and to the action queries of the layer. What
    they take from the latter two is multiplied by ``tanh`` of a learned gate each. Gates start at
    zero, so an untrained block does not depend on the detector at all.

    Args:
        embed_dims: C.
        num_heads: number of attention heads.
        feedforward_channels: width of the feed-forward network.
    """

    def __init__(self, embed_dims: int, *, num_heads: int, feedforward_channels: int) -> None:
        super().__init__()
        self.self_attention, self.object_attention, self.action_attention = (
            MultiheadAttention(embed_dims, num_heads=num_heads) for _ in range(3)
        )
        self.object_gate = nn.Parameter(torch.zeros(()))
        self.action_gate = nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(embed_dims)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(embed_dims), FeedForward(embed_dims, hidden_dims=feedforward_channels)
        )

    def forward(self, waypoints: Tensor, objects: Tensor, actions: Tensor) -> Tensor:
        """(B, T, C), (B, Q, C), (B, N, C) -> (B, T, C)."""
        query = self.norm(waypoints)
        read = self.self_attention(query, query, query)
        read = read + self.object_gate.tanh() * self.object_attention(query, objects, objects)
        read = read + self.action_gate.tanh() * self.action_attention(query, actions, actions)
        return self.feedforward(waypoints + read)
