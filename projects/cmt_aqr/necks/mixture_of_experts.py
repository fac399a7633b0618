"""Projectors in which a gate chooses a few experts for each token.

The gate is that of V-MoE ("Scaling Vision with Sparse Mixture of Experts", Riquelme et al., NeurIPS
2021), with the load-balancing loss of Switch Transformer (Fedus et al., JMLR 2022).

Shapes: T tokens, E experts, C channels, H hidden channels of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from .choice_counter import ChoiceCounter
from .projectors import LinearProjector


class Experts(nn.Module):
    """E networks of two linear layers with GELU, computed together.

    Args:
        num_experts: E.
        channels: C.
        hidden_channels: H.
    """

    def __init__(self, *, num_experts: int, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.empty(num_experts, channels, hidden_channels))
        self.bias1 = nn.Parameter(torch.zeros(num_experts, 1, hidden_channels))
        self.weight2 = nn.Parameter(torch.empty(num_experts, hidden_channels, channels))
        self.bias2 = nn.Parameter(torch.zeros(num_experts, 1, channels))
        for weight in (self.weight1, self.weight2):
            bound = math.sqrt(1 / weight.shape[1])  # as in `nn.Linear`
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (E, T, C)."""
        hidden = torch.matmul(tokens, self.weight1) + self.bias1
        return torch.matmul(functional.gelu(hidden), self.weight2) + self.bias2


@MODELS.register_module()
class MoEProjector(LinearProjector):
    """A linear layer, then the best experts of each token as a residual, and a norm.

    All experts compute all tokens, and the gate then drops all but the best. This takes E / top_k
    times the arithmetic of a sparse dispatch, but needs neither a capacity, beyond which tokens
    would be lost, nor a read of the counts by the host. Four experts of 256 channels take a
    fortieth of the arithmetic of a ViT-B.

    The auxiliary loss ``loss_load_balance`` is ``balance_weight`` if all experts have the same
    load, and up to E / top_k times that if a few have all of it.

    Args:
        in_channels: of the combined map.
        out_channels: of the output, C.
        combine: as in :class:`LinearProjector`.
        num_experts: number of experts, E.
        top_k: number of experts of each token; their weights sum to 1.
        hidden_channels: hidden width of an expert, H; 4 * C by default.
        noise: standard deviation of the noise on the logits of the gate, in training only; 1 / E
            by default.
        balance_weight: weight of the load-balancing loss.
        init_cfg: as in mmengine.

    Raises:
        ValueError: ``top_k`` is not in 1 to ``num_experts``.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        combine: Mapping | None = None,
        num_experts: int = 4,
        top_k: int = 2,
        hidden_channels: int | None = None,
        noise: float | None = None,
        balance_weight: float = 0.01,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, combine=combine, init_cfg=init_cfg
        )
        if not 1 <= top_k <= num_experts:
            raise ValueError(f'MoEProjector top_k {top_k} is not in 1 to num_experts {num_experts}')
        self.top_k = top_k
        self.noise = 1 / num_experts if noise is None else noise
        self.balance_weight = balance_weight
        self.gate = nn.Linear(out_channels, num_experts, bias=False)
        self.experts = Experts(
            num_experts=num_experts,
            channels=out_channels,
            hidden_channels=hidden_channels or 4 * out_channels,
        )
        self.norm = nn.LayerNorm(out_channels)
        self.load = ChoiceCounter('expert', num_experts)

    def project(self, tokens: Tensor, layer: Tensor | None) -> Tensor:
        """See the base class."""
        tokens = super().project(tokens, layer)
        weights = self._weigh(self.gate_logits(tokens, layer).float())
        experts = self.experts(tokens.flatten(0, -2))
        mixed = torch.einsum('te,etc->tc', weights.flatten(0, -2).to(experts), experts)
        return self.norm(tokens + mixed.view_as(tokens))

    def gate_logits(self, tokens: Tensor, layer: Tensor | None) -> Tensor:
        """(N, h, w, C) -> (N, h, w, E)."""
        return self.gate(tokens)

    def _weigh(self, logits: Tensor) -> Tensor:
        """Weights (..., E) of the experts, zero except for the best ``top_k``."""
        if self.training and self.noise:
            logits = logits + self.noise * torch.randn_like(logits)
        best = logits.topk(self.top_k, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, best.indices, best.values.softmax(dim=-1))
        if self.training:
            chosen = torch.zeros_like(logits).scatter(-1, best.indices, 1.0)
            self.load.add(chosen)
            self.auxiliary_losses = {'loss_load_balance': self._imbalance(logits, chosen)}
        return weights

    def _imbalance(self, logits: Tensor, chosen: Tensor) -> Tensor:
        """Weighted loss: E times the sum of share of tokens x mean probability."""
        num_experts = logits.shape[-1]
        probability = logits.softmax(dim=-1).flatten(0, -2).mean(dim=0)
        share = chosen.flatten(0, -2).mean(dim=0) / self.top_k
        return self.balance_weight * num_experts * (probability * share).sum()


@MODELS.register_module()
class AdaptiveMoEProjector(MoEProjector):
    """:class:`MoEProjector` whose gate also knows which layer was chosen.

    A learned number for each layer and expert, at first zero, is added to the logits of the gate.

    Args:
        combine: config of :class:`AdaptiveLayers`.
        num_layers: number of layers to choose from.
        options: those of :class:`MoEProjector`.
    """

    def __init__(self, *, combine: Mapping, num_layers: int, **options) -> None:
        super().__init__(combine=combine, **options)
        self.layer_logits = nn.Embedding(num_layers, self.gate.out_features)
        nn.init.zeros_(self.layer_logits.weight)

    def gate_logits(self, tokens: Tensor, layer: Tensor | None) -> Tensor:
        """See the base class.

        Raises:
            ValueError: no layer was chosen.
        """
        if layer is None:
            raise ValueError(
                'AdaptiveMoEProjector needs to know the chosen layer: set '
                "combine=dict(type='AdaptiveLayers', ...)"
            )
        return self.gate(tokens) + self.layer_logits(layer)[:, None, None]
