"""A plan read from a frozen detector by action queries and bridge attention.

After VLA-Adapter (Wang et al., 2025, arXiv 2509.09372): there the frozen model is a language model
with vision, here it is CMT with or without its router.

Shapes: B batch, L decoder layers, Q object queries, N action queries, T waypoints, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from ..transformer import sine_embedding
from .bridge_attention import BridgeAttention
from .plan_head import PlanHead

if TYPE_CHECKING:
    from ..head import HeadOutput
    from ..transformer import CmtTransformer

READS = ('tokens', 'objects')
PERCEPTION = ('as_is', 'zeroed', 'shuffled')


@MODELS.register_module()
class ActionQueryHead(PlanHead):
    """Action queries pass the frozen decoder, and waypoint queries read all of its layers.

    With ``reads='tokens'`` the action queries go through the decoder beside the object queries:
    they attend to them and to the sensors' tokens, while object queries never attend to them, so
    the boxes are those without a planner. With ``reads='objects'`` they stay as they are learned,
    and the plan depends on the sensors through the hidden states of the object queries alone.

    Args:
        embed_dims: C; the detector gives it.
        num_layers: L; the detector gives it.
        num_queries: N.
        num_heads: heads of bridge attention.
        feedforward_channels: width of the feed-forward networks.
        reads: ``tokens`` or ``objects``.
        perception: what the planner gets of the detector, to test how much a plan owes to it:
            ``as_is``, ``zeroed``, or ``shuffled``, that of another sample of the batch.
        options: of :class:`~projects.cmt_aqr.planning.plan_head.PlanHead`.

    Raises:
        ValueError: another word for ``reads`` or ``perception``.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_layers: int,
        num_queries: int = 16,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        reads: str = 'tokens',
        perception: str = 'as_is',
        **options: Any,
    ) -> None:
        super().__init__(embed_dims=embed_dims, **options)
        for name, word, words in (('reads', reads, READS), ('perception', perception, PERCEPTION)):
            if word not in words:
                raise ValueError(f'planner.{name} is {word!r}; it must be one of {words}')
        self.reads = reads
        self.perception = perception
        self.action_queries = nn.Parameter(torch.zeros(num_queries, embed_dims))
        # Without a code of their own, queries that start equal would stay equal.
        place = torch.arange(num_queries)[:, None].expand(-1, 2) / num_queries
        code = sine_embedding(place, embed_dims)[:, :embed_dims]
        self.register_buffer('action_pos', code, persistent=False)
        self.position_norm = nn.LayerNorm(embed_dims)
        self.bridges = nn.ModuleList(
            BridgeAttention(
                embed_dims, num_heads=num_heads, feedforward_channels=feedforward_channels
            )
            for _ in range(num_layers)
        )

    def forward(
        self, detector: HeadOutput, transformer: CmtTransformer, ego: Mapping[str, Tensor] | None
    ) -> Tensor:
        """(B, T, 3): see :class:`~projects.cmt_aqr.planning.plan_head.PlanHead`.

        Raises:
            ValueError: ``shuffled`` in a batch of one sample.
        """
        # Hidden states do not say where their queries are.
        objects = detector.states.hidden + self.position_norm(detector.states.query_pos)
        actions = self._actions(detector, transformer)
        if self.perception == 'zeroed':
            objects, actions = 0 * objects, 0 * actions  # with gradients, of zero
        elif self.perception == 'shuffled':
            if objects.shape[1] == 1:
                raise ValueError(
                    "planner.perception='shuffled' takes the detector's output of another sample, "
                    'but a batch has one: use a larger batch_size, with drop_last=True'
                )
            objects, actions = objects.roll(1, dims=1), actions.roll(1, dims=1)
        waypoints = self.queries(objects.shape[1], ego)
        for bridge, layer_objects, layer_actions in zip(
            self.bridges, objects, actions, strict=True
        ):
            waypoints = bridge(waypoints, layer_objects, layer_actions)
        return self.waypoints(waypoints)

    def _actions(self, detector: HeadOutput, transformer: CmtTransformer) -> Tensor:
        """(L, B, N, C): action queries after each decoder layer, or as they are learned."""
        layers, batch_size = detector.states.hidden.shape[:2]
        if self.reads == 'objects':
            queries = self.action_queries + self.action_pos
            return queries.expand(layers, batch_size, -1, -1)
        tokens = detector.tokens
        return transformer(
            self.action_pos.expand(batch_size, -1, -1),
            query=self.action_queries.expand(batch_size, -1, -1),
            tokens=tokens.features,
            token_pos=tokens.position,
            token_mask=tokens.token_mask,
            beside=detector.states,
        ).hidden
