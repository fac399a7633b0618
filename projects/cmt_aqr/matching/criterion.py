"""The losses of CMT: set prediction by Hungarian matching, and denoising.

Shapes: B batch, Q queries, L decoder layers, n ground-truth boxes of a sample, N denoising queries.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from .box_coder import encode_boxes


class TaskOutput(NamedTuple):
    """What one task head says in one decoder layer."""

    codes: Tensor
    """(B, Q, 10)"""
    logits: Tensor
    """(B, Q, classes of the task)"""


class GroundTruth(NamedTuple):
    """The boxes of one sample."""

    boxes: Tensor
    """(n, 9), z at the centre of gravity"""
    labels: Tensor
    """(n,), indices into the classes of all tasks together"""


class NoisedTargets(NamedTuple):
    """What each denoising query should give."""

    boxes: Tensor
    """(N, 9), z at the centre of gravity"""
    labels: Tensor
    """(N,), the number of classes where the noise made a query background"""
    raw_labels: Tensor
    """(N,), the labels before the noise"""


def _in_float32(losses: Callable) -> Callable:
    """Compute losses of task outputs in float32, also under autocast, as they were released."""

    @functools.wraps(losses)
    def compute(criterion: 'SetCriterion', tasks: Sequence[TaskOutput], *args, **options):
        tasks = [TaskOutput(task.codes.float(), task.logits.float()) for task in tasks]
        with torch.autocast(tasks[0].codes.device.type, enabled=False):
            return losses(criterion, tasks, *args, **options)

    return compute


class SetCriterion:
    """Classification and box losses of one decoder layer, summed over the tasks, in float32.

    The classification loss is divided by positives + 0.1 negatives, the box loss by positives,
    each the mean over ranks and at least one, so that a batch without any box trains.

    Args:
        num_classes: classes of each task; labels count through the tasks.
        assigner: config of the assigner.
        loss_cls: config of the classification loss.
        loss_bbox: config of the box loss.
        code_weights: weight of each of the ten numbers of a box code.
        negative_weight: share of a negative in the normaliser of the classification loss.
    """

    def __init__(
        self,
        *,
        num_classes: Sequence[int],
        assigner: dict,
        loss_cls: dict,
        loss_bbox: dict,
        code_weights: Sequence[float],
        negative_weight: float = 0.1,
    ) -> None:
        self.num_classes = tuple(num_classes)
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.code_weights = tuple(code_weights)
        self.negative_weight = negative_weight

    @_in_float32
    def matched(
        self, tasks: Sequence[TaskOutput], truth: Sequence[GroundTruth]
    ) -> tuple[Tensor, Tensor]:
        """Classification and box loss of queries matched one to one with the ground truth."""
        losses = []
        for first, output in zip(self._first_classes(), tasks, strict=True):
            losses.append(self._matched_task(output, truth, first))
        cls, bbox = zip(*losses, strict=True)
        return sum(cls), sum(bbox)

    @_in_float32
    def denoising(
        self, tasks: Sequence[TaskOutput], targets: NoisedTargets, *, positive_share: float
    ) -> tuple[Tensor, Tensor]:
        """Classification and box loss of denoising queries, whose boxes are known.

        Args:
            tasks: outputs of the N denoising queries: codes (N, 10), logits (N, classes).
            targets: what they should give.
            positive_share: expected share of queries that the noise leaves as objects.
        """
        losses = []
        for first, output in zip(self._first_classes(), tasks, strict=True):
            losses.append(self._denoising_task(output, targets, first, positive_share))
        cls, bbox = zip(*losses, strict=True)
        return sum(cls), sum(bbox)

    def _first_classes(self) -> list[int]:
        """Index of each task's first class."""
        return [sum(self.num_classes[:i]) for i in range(len(self.num_classes))]

    def _matched_task(
        self, output: TaskOutput, truth: Sequence[GroundTruth], first: int
    ) -> tuple[Tensor, Tensor]:
        num_classes = output.logits.shape[-1]
        labels, targets, positive = [], [], []
        for codes, logits, sample in zip(output.codes, output.logits, truth, strict=True):
            inside = (sample.labels >= first) & (sample.labels < first + num_classes)
            target_codes = encode_boxes(sample.boxes[inside])
            target_labels = sample.labels[inside] - first
            assigned = self._assign(codes, logits, target_codes, target_labels)
            sample_labels = target_labels.new_full((len(codes),), num_classes)
            sample_labels[assigned >= 0] = target_labels[assigned[assigned >= 0]]
            labels.append(sample_labels)
            targets.append(target_codes[assigned[assigned >= 0]])
            positive.append(assigned >= 0)
        labels, targets, positive = torch.cat(labels), torch.cat(targets), torch.cat(positive)
        num_positive = positive.sum()
        num_negative = positive.numel() - num_positive
        cls = self.loss_cls(
            output.logits.flatten(0, 1),
            labels,
            avg_factor=_normaliser(num_positive + self.negative_weight * num_negative),
        )
        bbox = self._box_loss(output.codes.flatten(0, 1)[positive], targets, num_positive)
        return cls, bbox

    def _assign(
        self, codes: Tensor, logits: Tensor, target_codes: Tensor, target_labels: Tensor
    ) -> Tensor:
        """(Q,): the index of the box matched with each query, -1 where there is none."""
        for name, values in (('box code', codes), ('class logit', logits)):
            if not torch.isfinite(values).all():
                raise FloatingPointError(
                    f'{(~torch.isfinite(values)).sum()} of {values.numel()} {name}s are not '
                    'finite: the training has diverged; lower the learning rate or look for '
                    'damaged input in this batch'
                )
        result = self.assigner.assign(
            InstanceData(codes=codes, scores=logits),
            InstanceData(codes=target_codes, labels=target_labels),
        )
        return result.gt_inds - 1

    def _denoising_task(
        self, output: TaskOutput, targets: NoisedTargets, first: int, positive_share: float
    ) -> tuple[Tensor, Tensor]:
        num_classes = output.logits.shape[-1]
        labels = targets.labels - first
        labels = labels.where((labels >= 0) & (labels < num_classes), num_classes)
        raw = targets.raw_labels - first
        of_task = (raw >= 0) & (raw < num_classes)
        count = raw.new_tensor(len(raw), dtype=output.logits.dtype)
        cls = self.loss_cls(output.logits, labels, avg_factor=_normaliser(count * positive_share))
        bbox = self._box_loss(output.codes[of_task], encode_boxes(targets.boxes[of_task]), count)
        return cls, bbox

    def _box_loss(self, codes: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        """L1 of (P, 10) codes, divided by a count that may be larger than P.

        A box of which something is not known (nuScenes gives NaN for some velocities) still
        counts, but regresses nothing.
        """
        finite = torch.isfinite(targets).all(dim=-1, keepdim=True)
        targets = targets.where(finite, codes.detach())
        weights = codes.new_tensor(self.code_weights).expand_as(codes)
        return self.loss_bbox(codes, targets, weights, avg_factor=_normaliser(count))


def _normaliser(count: Tensor) -> float:
    """The mean of a count over all ranks, at least one."""
    return reduce_mean(count.float()).clamp(min=1).item()
