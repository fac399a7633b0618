"""Hungarian matching of the queries of all decoder layers, with a single host read.

Shapes: B batch, Q queries, L decoder layers, N ground-truth boxes of the batch, n those of one
sample and task, P matched pairs of one task in a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..transfer import to_device
from .ground_truth import GroundTruth

_DIVERGED = (
    'the training has diverged; lower the learning rate or check the batch for damaged inputs'
)


class TaskOutput(NamedTuple):
    """Output of one task head in all decoder layers."""

    codes: Tensor
    """(L, B, Q, 10); (L, N, 10) for denoising queries"""
    logits: Tensor
    """(L, B, Q, classes of the task); (L, N, classes) for denoising queries"""


class Matching(NamedTuple):
    """Matched pairs of a query and a box of one task; their number is the same in every layer."""

    query: Tensor
    """(L, P), index into the B * Q queries of the batch, ascending"""
    box: Tensor
    """(L, P), index into the N boxes of the batch"""


class HungarianMatcher:
    """One-to-one matching of queries with boxes, by task, with the lowest total cost.

    scipy computes it on the host, which waits for the device once: the costs of all layers, tasks
    and samples are read together with the numbers of outputs that are not finite.

    Args:
        assigner: config of a Hungarian assigner of MMDetection, whose ``match_costs`` are used.
    """

    def __init__(self, assigner: Mapping) -> None:
        self.match_costs = TASK_UTILS.build(assigner).match_costs

    @torch.no_grad()
    def __call__(
        self,
        tasks: Sequence[TaskOutput],
        truth: GroundTruth,
        codes: Tensor,
        num_classes: Sequence[int],
    ) -> list[Matching]:
        """Match the learned queries.

        Args:
            tasks: output of each task.
            truth: ground truth of the batch.
            codes: (N, 10), box codes of the ground truth.
            num_classes: number of classes of each task.

        Returns:
            The pairs of each task.

        Raises:
            FloatingPointError: a box code, a class logit or a matching cost is not finite.
        """
        boxes = truth.by_task(num_classes)
        first = np.cumsum([0, *num_classes])
        order = to_device(np.concatenate([i for task in boxes for i in task]), codes, torch.long)
        codes, labels = codes[order], truth.labels[order]
        costs, start = [], 0
        for t, task in enumerate(tasks):
            for b, box in enumerate(boxes[t]):
                here = slice(start, start + len(box))
                start += len(box)
                targets = InstanceData(codes=codes[here], labels=labels[here] - int(first[t]))
                costs.append(self._cost(task.codes[:, b], task.logits[:, b], targets))
        matrices = iter(_read(tasks, costs))
        num_queries = tasks[0].codes.shape[2]
        pairs = [
            np.concatenate(
                [_assign(next(matrices), box, b * num_queries) for b, box in enumerate(task)],
                axis=-1,
            )
            for task in boxes
        ]
        sizes = [part.shape[-1] for part in pairs]
        joined = to_device(np.concatenate(pairs, axis=-1), codes, torch.long)
        return [Matching(*part) for part in joined.split(sizes, dim=-1)]

    def _cost(self, codes: Tensor, logits: Tensor, targets: InstanceData) -> Tensor:
        """(L, Q, n) from codes (L, Q, 10) and logits (L, Q, classes) of one sample."""
        predictions = InstanceData(codes=codes.flatten(0, 1), scores=logits.flatten(0, 1))
        costs = [
            cost(pred_instances=predictions, gt_instances=targets) for cost in self.match_costs
        ]
        return torch.stack(costs).sum(dim=0).unflatten(0, codes.shape[:2])


def _read(tasks: Sequence[TaskOutput], costs: Sequence[Tensor]) -> list[np.ndarray]:
    """The costs on the host; the only point of the loss at which the host waits for the device."""
    outputs = [values for task in tasks for values in task]
    not_finite = torch.stack([(~torch.isfinite(values)).sum() for values in outputs])
    parts = [not_finite.to(outputs[0]), *(cost.flatten() for cost in costs)]
    host = torch.cat(parts).cpu().numpy()
    ends = np.cumsum([len(part) for part in parts])
    counts, *matrices = np.split(host, ends[:-1])
    for count, values, name in zip(
        counts, outputs, ['box code', 'class logit'] * len(tasks), strict=True
    ):
        if count:
            raise FloatingPointError(
                f'{count:.0f} of {values.numel()} {name}s are not finite: {_DIVERGED}'
            )
    if not np.isfinite(host).all():
        raise FloatingPointError(
            'a matching cost is not finite, though all outputs are: a box of the ground truth is '
            f'not finite, or {_DIVERGED}'
        )
    return [part.reshape(cost.shape) for part, cost in zip(matrices, costs, strict=True)]


def _assign(cost: np.ndarray, box: np.ndarray, first_query: int) -> np.ndarray:
    """Query and box of each pair (2, L, P of the sample) from the cost (L, Q, n)."""
    pairs = [linear_sum_assignment(layer) for layer in cost]
    return np.stack(
        [
            np.stack([first_query + query for query, _ in pairs]),
            np.stack([box[column] for _, column in pairs]),
        ]
    )
