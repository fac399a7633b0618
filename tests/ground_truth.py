"""Ground truth of a batch from tensors, for tests."""

import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.matching import GroundTruth


def truth_of(*samples, num_classes=10) -> GroundTruth:
    """From boxes (n, 9), z at the centre of gravity, and labels of each sample."""
    instances = [
        InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
            labels_3d=torch.as_tensor(labels, dtype=torch.long),
        )
        for boxes, labels in samples
    ]
    return GroundTruth.of(instances, num_classes=num_classes, like=torch.zeros(()))
