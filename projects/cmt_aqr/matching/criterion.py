"""Losses of CMT: set prediction with Hungarian matching, and denoising.

Shapes: B batch, Q queries, L decoder layers, N ground-truth boxes of the batch or denoising
queries, P matched pairs of one task in a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS
from torch import Tensor

from ..transfer import to_device
from .box_coder import encode_boxes
from .ground_truth import GroundTruth
from .matcher import HungarianMatcher, Matching, TaskOutput


class NoisedTargets(NamedTuple):
    """Targets of the denoising queries."""

    boxes: Tensor
    """(N, 9), z at the centre of gravity"""
    labels: Tensor
    """(N,), the number of classes for queries that the noise made background"""
    raw_labels: Tensor
    """(N,), labels before the noise"""


class LayerLosses(NamedTuple):
    """Losses of one decoder layer."""

    cls: Tensor
    bbox: Tensor


class SetCriterion:
    """Classification and box losses of all decoder layers, summed over the tasks, in float32.

    The classification loss is divided by positives + 0.1 negatives, and the box loss by positives.
    Both counts are means over ranks and at least 1, so that batches without boxes train. Every rank
    takes part in one all-reduce per call, regardless of its batch.

    Args:
        num_classes: number of classes of each task; labels are numbered across tasks.
        assigner: config of a Hungarian assigner, see
            :class:`~projects.cmt_aqr.matching.matcher.HungarianMatcher`.
        loss_cls: config of the classification loss, which receives logits and one-hot targets.
        loss_bbox: config of the box loss.
        code_weights: weights of the ten numbers of a box code.
        negative_weight: weight of a negative in the divisor of the classification loss.
        denoising_share: expected share of denoising queries that remain objects; ``None`` without
            denoising queries.
    """

    def __init__(
        self,
        *,
        num_classes: Sequence[int],
        assigner: Mapping,
        loss_cls: Mapping,
        loss_bbox: Mapping,
        code_weights: Sequence[float],
        negative_weight: float = 0.1,
        denoising_share: float | None = None,
    ) -> None:
        self.num_classes = tuple(num_classes)
        self.matcher = HungarianMatcher(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.code_weights = tuple(code_weights)
        self.negative_weight = negative_weight
        self.denoising_share = denoising_share

    def __call__(
        self,
        tasks: Sequence[TaskOutput],
        truth: GroundTruth,
        noised: Sequence[TaskOutput] = (),
        targets: NoisedTargets | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, in float32 also under autocast, as in the released code.

        Args:
            tasks: output of each task for the learned queries.
            truth: ground truth of the batch.
            noised: output of each task for the denoising queries.
            targets: targets of the denoising queries; ``None`` if the batch has none.

        Returns:
            ``loss_cls``, ``loss_bbox`` and, with denoising, ``dn_loss_cls``, ``dn_loss_bbox``;
            those of layers before the last have the prefix ``d<layer>.``.

        Raises:
            FloatingPointError: an output is not finite.
        """
        with torch.autocast(tasks[0].codes.device.type, enabled=False):
            tasks, noised = _in_float32(tasks), _in_float32(noised)
            codes = encode_boxes(truth.boxes)
            matchings = self.matcher(tasks, truth, codes, self.num_classes)
            *of_tasks, of_denoising = self._divisors(tasks, matchings, targets)
            learned = self._matched(tasks, matchings, truth.labels, codes, of_tasks)
            if targets is None:
                denoised = _zeros(tasks)
            else:
                denoised = self._denoising(noised, targets, of_denoising)
        losses = {}
        for layer in range(len(learned)):
            prefix = '' if layer == len(learned) - 1 else f'd{layer}.'
            losses[f'{prefix}loss_cls'], losses[f'{prefix}loss_bbox'] = learned[layer]
            if self.denoising_share is not None:
                losses[f'{prefix}dn_loss_cls'], losses[f'{prefix}dn_loss_bbox'] = denoised[layer]
        return losses

    def _divisors(
        self,
        tasks: Sequence[TaskOutput],
        matchings: Sequence[Matching],
        targets: NoisedTargets | None,
    ) -> Tensor:
        """(tasks + 1, 2), divisors of classification and box loss; the last row is for denoising.

        Means of the counts over all ranks, at least 1, computed by a single all-reduce.
        """
        positives = torch.tensor([matching.query.shape[1] for matching in matchings])
        negatives = tasks[0].codes[0, ..., 0].numel() - positives
        learned = torch.stack([positives + self.negative_weight * negatives, positives], dim=1)
        num_noised = 0 if targets is None else len(targets.labels)
        noised = torch.tensor([self.denoising_share or 0.0, 1.0]) * num_noised
        counts = torch.cat([learned, noised[None]])
        return reduce_mean(to_device(counts, tasks[0].codes)).clamp(min=1)

    def _matched(
        self,
        tasks: Sequence[TaskOutput],
        matchings: Sequence[Matching],
        labels: Tensor,
        codes: Tensor,
        divisors: Sequence[Tensor],
    ) -> list[LayerLosses]:
        """Losses of the learned queries, from ``labels`` and ``codes`` of the ground truth."""
        losses, first = [], 0
        for task, matching, divisor in zip(tasks, matchings, divisors, strict=True):
            predicted, logits = task.codes.flatten(1, 2), task.logits.flatten(1, 2)
            num_layers, _, num_classes = logits.shape
            wanted = labels.new_full(logits.shape[:2], num_classes)  # background
            wanted.scatter_(1, matching.query, labels[matching.box] - first)
            layer = torch.arange(num_layers, device=wanted.device)[:, None]
            output = TaskOutput(predicted[layer, matching.query], logits)
            losses.append(self._by_layer(output, codes[matching.box], wanted, divisor))
            first += num_classes
        return _sum_tasks(losses)

    def _denoising(
        self, tasks: Sequence[TaskOutput], targets: NoisedTargets, divisor: Tensor
    ) -> list[LayerLosses]:
        """Losses of the denoising queries; even those that became background regress their box."""
        codes = encode_boxes(targets.boxes)
        losses, first = [], 0
        for task in tasks:
            num_layers, _, num_classes = task.logits.shape
            labels, raw = targets.labels - first, targets.raw_labels - first
            labels = labels.where((labels >= 0) & (labels < num_classes), num_classes)
            of_task = (raw >= 0) & (raw < num_classes)
            wanted = codes.where(of_task[:, None], torch.nan)  # excluded from regression
            losses.append(
                self._by_layer(
                    task,
                    wanted.expand(num_layers, -1, -1),
                    labels.expand(num_layers, -1),
                    divisor,
                )
            )
            first += num_classes
        return _sum_tasks(losses)

    def _by_layer(
        self, output: TaskOutput, codes: Tensor, labels: Tensor, divisor: Tensor
    ) -> list[LayerLosses]:
        """Losses of one task for targets ``codes`` (L, P, 10) and ``labels`` (L, queries)."""
        return [
            LayerLosses(
                self.loss_cls(logits, _one_hot(wanted, logits.shape[-1]), avg_factor=divisor[0]),
                self._box_loss(predicted, target, divisor[1]),
            )
            for predicted, logits, target, wanted in zip(*output, codes, labels, strict=True)
        ]

    def _box_loss(self, codes: Tensor, targets: Tensor, divisor: Tensor) -> Tensor:
        """Sum over (P, 10) codes, divided by ``divisor``.

        A box with an unknown value, such as some velocities in nuScenes, which are NaN, counts in
        the divisor but regresses nothing.
        """
        known = torch.isfinite(targets).all(dim=-1, keepdim=True)
        targets = targets.where(known, codes.detach())
        # With a weight argument, mmdet's loss would read from the device whether any is above 0.
        loss = self.loss_bbox(codes, targets, reduction_override='none')
        return weight_reduce_loss(loss, to_device(self.code_weights, codes), avg_factor=divisor)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(n,) -> (n, num_classes), zero for background, whose label is ``num_classes``.

    MMDetection's ``FocalLoss`` computes one-hot targets in plain PyTorch, but label indices on a
    GPU by mmcv's CUDA operator, which an mmcv built without CUDA lacks.
    """
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).long()


def _in_float32(tasks: Sequence[TaskOutput]) -> list[TaskOutput]:
    return [TaskOutput(task.codes.float(), task.logits.float()) for task in tasks]


def _zeros(tasks: Sequence[TaskOutput]) -> list[LayerLosses]:
    """Losses of zero that keep the autograd graph, for a batch without denoising queries."""
    codes = zip(*(task.codes for task in tasks), strict=True)
    zeros = [sum(code.sum() * 0 for code in layer) for layer in codes]
    return [LayerLosses(zero, zero) for zero in zeros]


def _sum_tasks(losses: Sequence[Sequence[LayerLosses]]) -> list[LayerLosses]:
    """Losses by task and layer -> losses by layer, summed over the tasks."""
    return [
        LayerLosses(*(sum(parts) for parts in zip(*layer, strict=True)))
        for layer in zip(*losses, strict=True)
    ]
