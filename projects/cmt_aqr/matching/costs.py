"""Matching costs that MMDetection lacks."""

from collections.abc import Sequence

import torch
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from ..transfer import to_device


@TASK_UTILS.register_module()
class BBox3DL1Cost:
    """L1 distance between box codes, the matching cost of DETR3D (Wang et al., CoRL 2021).

    Args:
        weight: factor of the cost.
        code_weights: factors of the first numbers of the code; further numbers do not count, such
            as the velocity at the end.
    """

    def __init__(self, *, weight: float = 0.25, code_weights: Sequence[float]) -> None:
        self.weight = weight
        self.code_weights = tuple(code_weights)

    def __call__(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
    ) -> Tensor:
        """Cost (Q, n) between ``codes`` (Q, 10) of predictions and (n, 10) of ground truth."""
        weights = to_device(self.code_weights, pred_instances.codes)
        used = len(self.code_weights)
        predicted = pred_instances.codes[:, :used] * weights
        target = gt_instances.codes[:, :used] * weights
        return torch.cdist(predicted, target, p=1) * self.weight
