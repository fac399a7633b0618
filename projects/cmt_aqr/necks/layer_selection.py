"""Ways in which the maps of several encoder layers, or of two encoders, become one map.

Each is the first part of a :class:`~projects.cmt_aqr.necks.LinearProjector` or a subclass, because
it learns while the encoders are frozen.

Shapes: N images, L layers, C channels, h x w tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from .choice_counter import ChoiceCounter


class Combined(NamedTuple):
    """One map for each image."""

    features: Tensor
    """(N, C, h, w)"""
    layer: Tensor | None = None
    """(N,), which of the layers it is, if one was chosen"""


class ConcatLayers(nn.Module):
    """All maps, concatenated by channel; the default of every projector."""

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """L maps (N, C, h, w) -> (N, L * C, h, w)."""
        return Combined(torch.cat([*maps], dim=1))


@MODELS.register_module()
class WeightedLayers(nn.Module):
    """Sum of all maps with learned weights, the softmax of one number for each layer.

    As ELMo (Peters et al., NAACL 2018) mixes the layers of a language model. All start equal.

    Args:
        num_layers: number of maps, L.
    """

    def __init__(self, *, num_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """L maps (N, C, h, w) -> (N, C, h, w)."""
        _check_count(self, maps, len(self.logits))
        weights = self.logits.softmax(dim=0)
        return Combined(torch.einsum('l,lnchw->nchw', weights, torch.stack([*maps])))


@MODELS.register_module()
class MixedEncoders(nn.Module):
    """Sum of the two halves of a :class:`DualEncoder`'s map with a learned weight.

    Each is normalised by token and projected to the same width; they start with equal weights.

    Args:
        channels: of each encoder.
        out_channels: of the sum.
    """

    def __init__(self, *, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.channels = [*channels]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_channels)) for width in channels
        )
        self.logits = nn.Parameter(torch.zeros(len(self.channels)))

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """One map (N, sum of the channels, h, w) -> (N, out_channels, h, w)."""
        _check_count(self, maps, 1)
        parts = maps[0].movedim(1, -1).split(self.channels, dim=-1)
        weights = self.logits.softmax(dim=0)
        mixed = sum(
            weight * project(part)
            for weight, project, part in zip(weights, self.projections, parts, strict=True)
        )
        return Combined(mixed.movedim(-1, 1))


@MODELS.register_module()
class AdaptiveLayers(nn.Module):
    """The layer that a light classifier expects to give the best detections, for each image.

    The classifier reads the mean of every map and learns from trials of the
    :class:`~projects.cmt_aqr.layer_trials.LayerTrialDetector`, which sets ``label``: in a step with
    trials the label is taken for all images and is the target of the auxiliary loss ``loss_layer``.
    In all other steps, and in testing, each image takes its most probable layer.

    Args:
        num_layers: number of maps, L.
        channels: of every map, C.
        hidden_channels: hidden width of the classifier.
        top_k: number of layers that a batch tries, the most probable ones.
        interval: training steps from one trial to the next.
        loss_weight: weight of the classification loss.

    Raises:
        ValueError: ``top_k`` is not in 1 to ``num_layers``, or ``interval`` is below 1.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        channels: int,
        hidden_channels: int = 128,
        top_k: int = 2,
        interval: int = 1,
        loss_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_layers or interval < 1:
            raise ValueError(
                f'AdaptiveLayers top_k {top_k} is not in 1 to num_layers {num_layers}, or interval '
                f'{interval} is below 1'
            )
        self.num_layers = num_layers
        self.top_k = top_k
        self.interval = interval
        self.loss_weight = loss_weight
        self.classifier = nn.Sequential(
            nn.LayerNorm(num_layers * channels),
            nn.Linear(num_layers * channels, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, num_layers),
        )
        self.chosen = ChoiceCounter('layer', num_layers)
        self.has_trials = False
        self.label: Tensor | None = None

    def forward(self, maps: Sequence[Tensor]) -> Combined:
        """L maps (N, C, h, w) -> one of them for each image.

        Raises:
            RuntimeError: it is trained by a detector without trials.
        """
        logits = self.logits(maps)
        layer = logits.argmax(dim=1) if self.label is None else self.label.expand(len(logits))
        if self.training:
            if not self.has_trials:
                raise RuntimeError(
                    'AdaptiveLayers learns from trials, which the detector does not make: set '
                    "model.type='LayerTrialDetector'"
                )
            self.chosen.add(functional.one_hot(layer, self.num_layers))
            self.auxiliary_losses = {'loss_layer': self._loss(logits)}
        image = torch.arange(len(layer), device=layer.device)
        return Combined(torch.stack([*maps], dim=1)[image, layer], layer)

    def logits(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, L) of L maps (N, C, h, w)."""
        _check_count(self, maps, self.num_layers)
        return self.classifier(torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)).float()

    def candidates(self, maps: Sequence[Tensor]) -> Tensor:
        """(top_k,), the layers to try: the most probable ones, by the mean over the images."""
        return self.logits(maps).softmax(dim=1).mean(dim=0).topk(self.top_k).indices

    def _loss(self, logits: Tensor) -> Tensor:
        if self.label is None:
            return 0 * logits.sum()  # distributed training waits for every gradient
        target = self.label.expand(len(logits))
        return self.loss_weight * functional.cross_entropy(logits, target)


def _check_count(module: nn.Module, maps: Sequence[Tensor], count: int) -> None:
    if len(maps) != count:
        raise ValueError(
            f'{type(module).__name__} takes {count} maps, but the backbone gives {len(maps)}: '
            'choose as many layers of the encoder'
        )
