"""Weights of each query for each sensor, from the tokens in the query's windows.

After the Adaptive Query Router of MoME (Park et al., CVPR 2025), which sends a query to one of
three experts. Here the weights are measured from a neutral value of zero, at which the detector is
plain CMT. Each sensor is pooled separately, so that a disagreement between two healthy-looking
sensors can be seen.

Shapes: B batch, Q queries, K tokens, C channels, H heads, M token groups, P windows, W cells of a
window, N pairs of a slot and a token.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..transformer.attention import MultiheadAttention
from ..transformer.decoder import FeedForward
from ..transformer.pairs import SparsePairs, pair_dot, pair_sum
from ..transformer.routing import MODALITIES
from .layout import TokenLayout
from .windows import Windows

GROUPINGS = ('modality', 'camera')
ACTIVATIONS = ('tanh', 'sigmoid', 'softmax')


class WindowAttention(MultiheadAttention):
    """Multi-head attention of each query to the tokens of its windows only.

    Equal to masked attention over all tokens, at the cost of Q * W instead of Q * K. No token is
    projected: both projections are linear, so that of the keys acts on the queries instead, and
    that of the values on the pooled tokens, both far fewer than all tokens. The bias of the keys
    adds the same to all logits of a query, so the softmax drops it.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        windows: Sequence[tuple[Windows, Tensor]],
        groups: int,
    ) -> Tensor:
        """Pool windows into slots, with one softmax over all windows of a slot.

        Args:
            query: (B, Q, C).
            key: (B, K, C).
            value: (B, K, C).
            windows: each with the slot (P,) of every window.
            groups: M; a query has a slot for each, so that there are B * Q * M.

        Returns:
            (slots, C), zero for a slot without a cell on a map.
        """
        (q,) = self.project(query)
        with torch.autocast(q.device.type, enabled=False):  # sums of exponentials need the range
            projections = self.in_proj_weight.float().unflatten(0, (3, self.num_heads, -1))
            _, to_key, to_value = projections
            q = (q * q.shape[-1] ** -0.5).float() @ to_key  # (B, H, Q, C)
            pooled, seen = self._pool(q, key.float(), value.float(), windows, groups)
            pooled = (pooled @ to_value.transpose(1, 2)).transpose(0, 1).flatten(1)  # (slots, C)
            pooled = pooled + self.in_proj_bias.chunk(3)[2]
        return self.out_proj(pooled.to(query)) * seen

    def _pool(
        self,
        q: Tensor,
        key: Tensor,
        value: Tensor,
        windows: Sequence[tuple[Windows, Tensor]],
        groups: int,
    ) -> tuple[Tensor, Tensor]:
        """(H, slots, C), and (slots, 1) whether a slot has any cell on a map."""
        batch_size, _, num_queries, _ = q.shape
        rows = num_queries * groups
        slots = batch_size * rows
        pairs, inside = _pairs(windows, rows, like=key)
        q = q[:, :, :, None].expand(-1, -1, -1, groups, -1).flatten(2, 3)
        outside = torch.finfo(q.dtype).min
        logit = pair_dot(q, key[:, None], pairs).masked_fill(~inside, outside)  # (H, N)
        slot = pairs.row

        # Softmax does not change under a shift; subtracting the largest logit keeps exp() finite.
        peak = q.new_full((self.num_heads, slots), outside)
        peak = peak.scatter_reduce(1, slot.expand_as(logit), logit.detach(), 'amax')
        weight = (logit - peak[:, slot]).exp() * inside
        total = q.new_zeros(self.num_heads, slots).index_add(1, slot, weight)
        pooled = pair_sum(weight, value[:, None], pairs).transpose(0, 1).flatten(1, 2)
        seen = total > 0
        return pooled / torch.where(seen, total, 1)[..., None], seen[0, :, None]


def _pairs(
    windows: Sequence[tuple[Windows, Tensor]], rows: int, like: Tensor
) -> tuple[SparsePairs, Tensor]:
    """Pairs of every slot, as a row of its sample, with every token of its windows.

    Cells outside of the map are kept: dropping them would need a read from the device.

    Returns:
        N pairs, and (N,) whether each is on its map, in their order.
    """
    batch_size, num_tokens = like.shape[:2]
    parts = [like.new_empty(4, 0, dtype=torch.long)]
    for window, slot in windows:
        sample = window.sample[:, None].expand_as(window.token)
        row = slot[:, None] - sample * rows
        fields = torch.stack([sample, row.expand_as(sample), window.token, window.inside.long()])
        parts.append(fields.flatten(1))
    sample, row, token, inside = torch.cat(parts, dim=1)
    pairs = SparsePairs.of(sample, row, token, shape=(batch_size, rows, num_tokens))
    return pairs, inside[pairs.order].bool()


class AQRWeightGenerator(nn.Module):
    """One cross-attention layer into the windows, then a linear layer that starts at zero.

    Args:
        embed_dims: C; the router gives it.
        groups: ``modality`` for a weight for LiDAR and one for all cameras; ``camera`` for LiDAR
            and each camera.
        activation: ``tanh``, in [-1, 1]; ``sigmoid``, less 0.5; or ``softmax`` over the groups that
            a sample has, less their even share.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.

    Raises:
        ValueError: unknown groups or activation.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        groups: str = 'modality',
        activation: str = 'tanh',
        num_heads: int = 4,
        feedforward_channels: int = 1024,
    ) -> None:
        super().__init__()
        if groups not in GROUPINGS:
            raise ValueError(f'groups is {groups!r}; it must be one of {list(GROUPINGS)}')
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation is {activation!r}; it must be one of {list(ACTIVATIONS)}')
        self.groups = groups
        self.activation = activation
        self.attention = WindowAttention(embed_dims, num_heads=num_heads)
        self.ffn = FeedForward(embed_dims, hidden_dims=feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(2))
        self.to_weight = nn.ModuleDict(
            {modality: nn.Linear(2 * embed_dims, 1) for modality in MODALITIES}
        )
        for linear in self.to_weight.values():
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        layout: TokenLayout,
        windows: Sequence[Windows],
        camera_mask: Tensor | None = None,
    ) -> Tensor:
        """Weights, measured from the neutral value zero.

        Args:
            query: (B, Q, C), query embedding.
            key: (B, K, C), tokens with their position embedding.
            value: (B, K, C), tokens.
            layout: of the tokens.
            windows: of every sensor that is present.
            camera_mask: (B, V), bool: cameras that a sample has; ``None`` for all.

        Returns:
            (B, Q, M), LiDAR first; zero for a group that a sample lacks.
        """
        inputs = self._pool(query, key, value, windows, layout)  # (B, Q, M, 2C)
        lidar, camera = self.to_weight['lidar'], self.to_weight['camera']
        logits = torch.cat([lidar(inputs[:, :, :1]), camera(inputs[:, :, 1:])], dim=2)[..., 0]
        valid_groups = self._valid_groups(layout, camera_mask, like=query)[:, None]
        return self.activate(logits, valid_groups) * valid_groups

    def activate(self, logits: Tensor, valid_groups: Tensor) -> Tensor:
        """Weights from logits (B, Q, M), zero for equal logits of zero.

        Args:
            logits: (B, Q, M).
            valid_groups: (B, 1, M), bool: groups that a sample has.
        """
        if self.activation == 'tanh':
            return logits.tanh()
        if self.activation == 'sigmoid':
            return logits.sigmoid() - 0.5
        shares = F.softmax(logits.masked_fill(~valid_groups, -torch.inf), dim=-1)
        return shares - 1 / valid_groups.sum(dim=-1, keepdim=True)

    def _pool(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        windows: Sequence[Windows],
        layout: TokenLayout,
    ) -> Tensor:
        """(B, Q, M, 2C): features of the group itself, and of the other sensor."""
        batch_size, num_queries = query.shape[:2]
        num_groups = layout.num_groups(self.groups)
        slotted = []
        for part in windows:
            group = part.group if self.groups == 'camera' else part.group.clamp(max=1)
            slotted.append((part, (part.sample * num_queries + part.query) * num_groups + group))
        pooled = self.attention(query, key, value, slotted, groups=num_groups)
        pooled = pooled.unflatten(0, (batch_size, num_queries, num_groups))
        # The query's embedding selects what is pooled and, as in the decoder, is not added to it:
        # beside a large embedding the norm would hide whether a sensor has anything to say.
        features = self.norms[1](self.ffn(self.norms[0](pooled)))
        lidar, camera = features[:, :, :1], features[:, :, 1:]
        # Cameras that do not see the query are left out of the mean.
        seeing = (pooled != 0).any(dim=-1, keepdim=True)[:, :, 1:].to(camera)
        count = seeing.sum(dim=2, keepdim=True).clamp(min=1)
        cameras = (camera * seeing).sum(dim=2, keepdim=True) / count
        other = torch.cat([cameras, lidar.expand_as(camera)], dim=2)
        return torch.cat([features, other], dim=-1)

    def _valid_groups(
        self, layout: TokenLayout, camera_mask: Tensor | None, like: Tensor
    ) -> Tensor:
        """(B, M), bool."""
        cameras = layout.num_groups(self.groups) - 1
        batch_size = like.shape[0]
        lidar = like.new_full((batch_size, 1), int(layout.bev is not None), dtype=torch.bool)
        camera = like.new_full((batch_size, cameras), int(layout.num_cameras > 0), dtype=torch.bool)
        if camera_mask is not None:
            any_camera = camera_mask.any(dim=1, keepdim=True)
            camera = camera_mask if self.groups == 'camera' else any_camera
        return torch.cat([lidar, camera], dim=1)
