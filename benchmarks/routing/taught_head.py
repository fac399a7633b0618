"""A head that learns from annotations and from a teacher that saw the undamaged frame.

Shapes: S samples, B batch, L decoder layers, Q learned queries.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.runner import CheckpointLoader
from torch import Tensor

from projects.cmt_aqr.denoising import DenoisingQueries
from projects.cmt_aqr.matching import GroundTruth
from projects.cmt_aqr.task_head import CLASS_BRANCH

from .low_rank import LowRankHead


@MODELS.register_module()
class TaughtHead(LowRankHead):
    """A head with one more loss: what the frozen CMT says of the undamaged frame, query by query.

    Learned queries have the same places in both, so that nothing is assigned. Every decoder layer
    learns the teacher's last one: scores by quality focal loss (Li et al., NeurIPS 2020), box codes
    by their L1 distance, weighted by the teacher's score. Needs a head with one task, frames
    without augmentation, and their ``token``.

    Args:
        teacher: file of :mod:`.record_teacher`.
        config: that of a :class:`LowRankHead`.
    """

    def __init__(self, *, teacher: str, **config: Any) -> None:
        super().__init__(**config)
        self._teacher = CheckpointLoader.load_checkpoint(teacher, map_location='cpu')
        self._row = {token: row for row, token in enumerate(self._teacher['tokens'])}
        self._lesson: tuple[Tensor, Tensor] | None = None

    def loss(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        batch_data_samples: Sequence[Det3DDataSample],
        health: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of :class:`CmtHead`, ``taught.loss_cls`` and ``taught.loss_bbox``."""
        rows = [self._row[sample.metainfo['token']] for sample in batch_data_samples]
        like = self.reference_points.weight
        self._lesson = tuple(self._teacher[name][rows].to(like) for name in ('codes', 'logits'))
        return super().loss(bev, images, batch_data_samples, health)

    def losses(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        truth: GroundTruth,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """Losses of the boxes, of annotations and of the teacher."""
        (task,) = outputs
        learned = {name: value[:, :, -self.num_query :] for name, value in task.items()}
        codes, logits = self._lesson
        losses = super().losses(outputs, truth, denoising)
        cls, bbox = taught_losses(
            self.box_coder.join(learned), learned[CLASS_BRANCH], codes, logits.sigmoid()
        )
        weights = like_codes(self.criterion.code_weights, codes)
        losses['taught.loss_cls'] = self.criterion.loss_cls.loss_weight * cls
        losses['taught.loss_bbox'] = self.criterion.loss_bbox.loss_weight * (bbox * weights).sum()
        return losses


def like_codes(weights: Sequence[float], codes: Tensor) -> Tensor:
    """The weights of a box code, as a tensor."""
    return codes.new_tensor(weights)


def taught_losses(
    codes: Tensor, logits: Tensor, taught_codes: Tensor, taught_scores: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of the scores, and of each number of the box codes, summed over the layers.

    Args:
        codes: (L, B, Q, 10).
        logits: (L, B, Q, classes).
        taught_codes: (B, Q, 10).
        taught_scores: (B, Q, classes), from 0 to 1.
    """
    certainty = taught_scores.amax(dim=-1, keepdim=True)
    total = certainty.sum().clamp(min=1)
    target = taught_scores.expand_as(logits)
    error = (logits.sigmoid() - target).square()
    cls = (error * F.binary_cross_entropy_with_logits(logits, target, reduction='none')).sum()
    bbox = ((codes - taught_codes).abs() * certainty).sum(dim=(0, 1, 2))
    return cls / total, bbox / total
