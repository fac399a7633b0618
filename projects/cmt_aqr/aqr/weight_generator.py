"""Weights of each query for each sensor, from what lies in the query's windows.

After the Adaptive Query Router of MoME (Park et al., CVPR 2025), which sends a query to one of
three experts. Here the weights are measured from a neutral value of zero, at which the detector is
the CMT that it was; and each sensor is pooled apart, so that two sensors that look healthy and
disagree can be told from two that agree.

Shapes: B batch, Q queries, K tokens, C channels, H heads, M token groups, P windows, W cells of a
window, N pairs of a slot and a token.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..transformer.attention import MultiheadAttention
from ..transformer.decoder import FeedForward
from ..transformer.pairs import Pairs, pair_dot, pair_sum
from .layout import TokenLayout, check_grouping
from .windows import Windows

ACTIVATIONS = ('tanh', 'sigmoid', 'softmax', 'none')
POOLINGS = ('separate', 'joint')


class WindowAttention(MultiheadAttention):
    """Multi-head attention of each query to the tokens of its windows alone.

    Equal to masked attention over all tokens, at the cost of Q * W in place of Q * K.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        windows: Sequence[tuple[Windows, Tensor]],
        slots: int,
    ) -> Tensor:
        """Pool windows into slots: one softmax goes over all windows of a slot.

        Args:
            query: (B, Q, C).
            key: (B, K, C).
            value: (B, K, C).
            windows: with each the slot (P,) of its every window.
            slots: number of slots.

        Returns:
            (slots, C), zero in a slot without a cell on a map.
        """
        q, k, v = self.project(query, key, value)
        with torch.autocast(q.device.type, enabled=False):  # sums of exponentials need the range
            pooled, seen = self._pool(q.float(), k.float(), v.float(), windows, slots)
        return self.out_proj(pooled.flatten(1).to(v)) * seen

    def _pool(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        windows: Sequence[tuple[Windows, Tensor]],
        slots: int,
    ) -> tuple[Tensor, Tensor]:
        """(slots, H, C / H), and whether anything was seen (slots, 1)."""
        batch_size, _, num_queries, channels = q.shape
        rows = slots // batch_size  # a query has one for each group that it pools apart
        pairs, inside = _pairs(windows, rows, like=k)
        q = (q * channels**-0.5).repeat_interleave(rows // num_queries, dim=2)
        outside = torch.finfo(q.dtype).min
        logit = pair_dot(q, k, pairs).masked_fill(~inside, outside)  # (H, N)
        slot = pairs.by_query.bag

        # Softmax is the same after any shift; the largest logit of a slot keeps exp() finite.
        peak = q.new_full((self.num_heads, slots), outside)
        peak = peak.scatter_reduce(1, slot.expand_as(logit), logit.detach(), 'amax')
        weight = (logit - peak[:, slot]).exp() * inside
        total = q.new_zeros(self.num_heads, slots).index_add(1, slot, weight)
        pooled = pair_sum(weight, v, pairs).transpose(1, 2).flatten(0, 1)
        seen = total > 0
        return pooled / torch.where(seen, total, 1).T[..., None], seen[0, :, None]


def _pairs(
    windows: Sequence[tuple[Windows, Tensor]], rows: int, like: Tensor
) -> tuple[Pairs, Tensor]:
    """Each slot, a row of its sample, with every token of its windows.

    Cells outside of the map are kept: to drop them, their number would have to be read.

    Returns:
        N pairs, and whether each is on its map (N,), in their order.
    """
    batch_size, _, num_tokens = like.shape[:3]
    parts = [like.new_empty(4, 0, dtype=torch.long)]
    for window, slot in windows:
        sample = window.sample[:, None].expand_as(window.token)
        row = slot[:, None] - sample * rows
        fields = torch.stack([sample, row.expand_as(sample), window.token, window.inside.long()])
        parts.append(fields.flatten(1))
    sample, row, token, inside = torch.cat(parts, dim=1)
    pairs = Pairs.of(sample, row, token, shape=(batch_size, rows, num_tokens))
    return pairs, inside[pairs.order].bool()


class AQRWeightGenerator(nn.Module):
    """One cross-attention layer into the windows, then a linear layer that starts at zero.

    Args:
        embed_dims: C.
        groups: ``modality`` for a weight for LiDAR and one for all cameras; ``camera`` for LiDAR
            and each camera.
        activation: ``tanh``, in [-1, 1]; ``sigmoid``, less 0.5; or ``softmax`` over the groups
            that are there, less their even share; ``none`` for the logits of a hard choice.
        pooling: ``separate`` pools each group apart, and a group's weight comes from its own
            features and those of the other sensor; ``joint`` has one softmax over the windows of
            both sensors, as MoME has it.
        num_heads: H.
        feedforward_channels: width of the feed-forward network.

    Raises:
        ValueError: an option is none of those above, or weights for each camera are asked of
            joint pooling, which cannot tell cameras apart.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        groups: str = 'modality',
        activation: str = 'tanh',
        pooling: str = 'separate',
        num_heads: int = 4,
        feedforward_channels: int = 1024,
    ) -> None:
        super().__init__()
        check_grouping(groups)
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation is {activation!r}; it must be one of {list(ACTIVATIONS)}')
        if pooling not in POOLINGS:
            raise ValueError(f'pooling is {pooling!r}; it must be one of {list(POOLINGS)}')
        if (groups, pooling) == ('camera', 'joint'):
            raise ValueError(
                "pooling='joint' cannot tell cameras apart; use pooling='separate' with "
                "groups='camera'"
            )
        self.groups = groups
        self.activation = activation
        self.pooling = pooling
        self.attention = WindowAttention(embed_dims, num_heads=num_heads)
        self.ffn = FeedForward(embed_dims, hidden_dims=feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(2))
        inputs = embed_dims if pooling == 'joint' else 2 * embed_dims
        self.to_weight = nn.ModuleDict(
            {modality: nn.Linear(inputs, 1) for modality in ('lidar', 'camera')}
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
        present: Tensor | None = None,
    ) -> Tensor:
        """Weights from zero, which is neutral.

        Args:
            query: (B, Q, C), query embedding.
            key: (B, K, C), tokens with their position embedding.
            value: (B, K, C), tokens.
            layout: of the tokens.
            windows: of every sensor that is there.
            present: (B, V), bool: cameras that a sample has; ``None`` for all.

        Returns:
            (B, Q, M), LiDAR first; zero for a group that is not there.
        """
        pool = self._pool_jointly if self.pooling == 'joint' else self._pool_apart
        inputs = pool(query, key, value, windows, layout)  # (B, Q, M, inputs)
        lidar, camera = self.to_weight['lidar'], self.to_weight['camera']
        logits = torch.cat([lidar(inputs[:, :, :1]), camera(inputs[:, :, 1:])], dim=2)[..., 0]
        there = self._groups_there(layout, present, like=query)[:, None]
        return _from_neutral(logits, there, self.activation)

    def _pool_jointly(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        windows: Sequence[Windows],
        layout: TokenLayout,
    ) -> Tensor:
        """(B, Q, M, C), the same for every group."""
        num_queries = query.shape[1]
        slotted = [(part, part.sample * num_queries + part.query) for part in windows]
        pooled = self.attention(query, key, value, slotted, slots=query[..., 0].numel())
        features = self._refine(pooled.view_as(query))
        return features[:, :, None].expand(-1, -1, layout.num_groups(self.groups), -1)

    def _pool_apart(
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
        slots = batch_size * num_queries * num_groups
        pooled = self.attention(query, key, value, slotted, slots=slots)
        pooled = pooled.unflatten(0, (batch_size, num_queries, num_groups))
        features = self._refine(pooled)
        lidar, camera = features[:, :, :1], features[:, :, 1:]
        # A group that sees nothing of the query has nothing to say to the other sensor.
        seeing = (pooled != 0).any(dim=-1, keepdim=True)[:, :, 1:].to(camera)
        cameras = (camera * seeing).sum(dim=2, keepdim=True) / seeing.sum(
            dim=2, keepdim=True
        ).clamp(min=1)
        other = torch.cat([cameras, lidar.expand_as(camera)], dim=2)
        return torch.cat([features, other], dim=-1)

    def _refine(self, pooled: Tensor) -> Tensor:
        # The query's embedding chooses what is pooled and, as in the decoder, adds nothing to it:
        # beside a large embedding the norm would hide whether a sensor has anything to say.
        return self.norms[1](self.ffn(self.norms[0](pooled)))

    def _groups_there(self, layout: TokenLayout, present: Tensor | None, like: Tensor) -> Tensor:
        """(B, M), bool."""
        cameras = layout.num_groups(self.groups) - 1
        lidar = like.new_full((len(like), 1), layout.bev is not None, dtype=torch.bool)
        camera = like.new_full((len(like), cameras), layout.num_cameras > 0, dtype=torch.bool)
        if present is not None:
            camera = present if self.groups == 'camera' else present.any(dim=1, keepdim=True)
        return torch.cat([lidar, camera], dim=1)


def _from_neutral(logits: Tensor, there: Tensor, activation: str) -> Tensor:
    """Logits (B, Q, M) -> weights that are zero where the logits are."""
    if activation == 'tanh':
        weights = logits.tanh()
    elif activation == 'sigmoid':
        weights = logits.sigmoid() - 0.5
    elif activation == 'none':
        weights = logits
    else:
        shares = F.softmax(logits.masked_fill(~there, -torch.inf), dim=-1)
        weights = shares - 1 / there.sum(dim=-1, keepdim=True)
    return weights * there
