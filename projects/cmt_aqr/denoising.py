"""Denoising queries of DN-DETR (Li et al., CVPR 2022), as CMT applies them in 3D.

Shapes: B batch, Q learned queries, P denoising queries per sample including padding, N denoising
queries of the batch without padding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import metres_to_unit
from .matching.criterion import NoisedTargets
from .matching.ground_truth import GroundTruth
from .transfer import to_device


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised ground truth, which precedes the learned queries of a batch."""

    reference: Tensor
    """(B, P, 3) in the unit range; unused slots of a sample are zero"""
    sample: Tensor
    """(N,): sample of each query"""
    slot: Tensor
    """(N,): index of each query among the P of its sample"""
    group_size: int
    """slots of a group; denoising queries see their own group and the learned queries"""
    targets: NoisedTargets

    @property
    def slots(self) -> int:
        """P."""
        return self.reference.shape[1]

    def self_attn_mask(self, num_query: int) -> Tensor:
        """(P + Q, P + Q), bool, True where a query may attend: never from a learned one to P."""
        group = torch.arange(self.slots, device=self.reference.device) // self.group_size
        allowed = torch.ones(2 * (self.slots + num_query,), dtype=torch.bool, device=group.device)
        allowed[: self.slots, : self.slots] = group[:, None] == group[None, :]
        allowed[self.slots :, : self.slots] = False
        return allowed


class DenoisingGenerator:
    """Generates denoising queries from ground truth.

    Args:
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
        num_classes: number of classes of all tasks together, also the label of background.
        groups: maximum number of noised copies of the ground truth, capped by the number of learned
            queries.
        noise_scale: largest shift of a centre along each axis, as a multiple of half the box size.
        noise_shift: added to half the box size, metres.
        split: length of the noise vector above which a query becomes background, from 0 to 1.

    Raises:
        ValueError: another ``split``.
    """

    def __init__(
        self,
        *,
        point_cloud_range: Sequence[float],
        num_classes: int,
        groups: int = 10,
        noise_scale: float = 1.0,
        noise_shift: float = 0.0,
        split: float = 0.75,
    ) -> None:
        if not 0 <= split <= 1:
            raise ValueError(f'denoising: split is {split}; it must be from 0 to 1')
        self.point_cloud_range = tuple(point_cloud_range)
        self.num_classes = num_classes
        self.groups = groups
        self.noise_scale = noise_scale
        self.noise_shift = noise_shift
        self.split = split

    @property
    def positive_share(self) -> float:
        """Expected share of objects: volume of a ball of radius ``split`` over the noise cube."""
        return math.pi / 6 * self.split**3

    def __call__(self, truth: GroundTruth, *, num_query: int) -> DenoisingQueries | None:
        """Noised copies of the ground truth; ``None`` without boxes, or with more boxes than Q.

        Args:
            truth: ground truth of the batch.
            num_query: Q.
        """
        group_size = max(truth.counts)
        groups = min(self.groups, num_query // group_size) if group_size else 0
        if groups == 0:
            return None
        boxes, labels = truth.boxes.repeat(groups, 1), truth.labels.repeat(groups)
        sample, slot = _places(truth.counts, group_size, groups, like=labels)

        noise = torch.rand_like(boxes[:, :3]) * 2 - 1
        reach = (boxes[:, 3:6] / 2 + self.noise_shift) * self.noise_scale
        centres = metres_to_unit(boxes[:, :3] + noise * reach, self.point_cloud_range)
        is_object = noise.norm(dim=1) <= self.split
        reference = boxes.new_zeros(len(truth.counts), group_size * groups, 3)
        reference[sample, slot] = centres.clamp(0, 1)
        return DenoisingQueries(
            reference=reference,
            sample=sample,
            slot=slot,
            group_size=group_size,
            targets=NoisedTargets(boxes, labels.where(is_object, self.num_classes), labels),
        )


def _places(
    counts: Sequence[int], group_size: int, groups: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample and slot of every noised box, ordered by group, each (groups * sum(counts),)."""
    sample = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    within = torch.cat([torch.arange(count) for count in counts])
    slot = torch.cat([within + group_size * group for group in range(groups)])
    return tuple(to_device(torch.stack([sample.repeat(groups), slot]), like, torch.long))
