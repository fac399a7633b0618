"""Ground truth of a batch, for losses and denoising queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ..transfer import to_device

# x, y, z, length, width, height, yaw, and velocity along x and y.
BOX_DIM = 9


class GroundTruth(NamedTuple):
    """The N boxes of a batch, ordered by sample.

    Labels and counts, which determine tensor sizes, are also available on the host.
    """

    boxes: Tensor
    """(N, 9), z at the centre of gravity"""
    labels: Tensor
    """(N,), indices into the classes of all tasks"""
    host_labels: np.ndarray
    """(N,), labels on the host"""
    counts: tuple[int, ...]
    """number of boxes of each sample"""

    @classmethod
    def of(
        cls,
        samples: Sequence[InstanceData],
        *,
        num_classes: int,
        like: Tensor,
        point_cloud_range: Sequence[float] | None = None,
    ) -> GroundTruth:
        """Join the ``bboxes_3d`` and ``labels_3d`` of all samples, with one host read.

        Boxes with a negative label are omitted: MMDetection3D assigns -1 to ignored boxes, such as
        those of other classes. So are boxes whose centres lie outside the range along x or y.

        Args:
            samples: the samples of the batch.
            num_classes: number of classes of all tasks together.
            like: tensor of the target device and type.
            point_cloud_range: metres; ``None`` for no limit.

        Raises:
            ValueError: a label is out of range, or boxes without a velocity.
        """
        labels = torch.cat([sample.labels_3d for sample in samples])
        boxes = samples[0].bboxes_3d.cat([sample.bboxes_3d for sample in samples])
        if point_cloud_range is not None:
            x_low, y_low, _, x_high, y_high, _ = point_cloud_range
            # `in_range_bev` of mmdet3d would wait for the device, for it copies a list of columns.
            x, y = boxes.tensor[:, 0], boxes.tensor[:, 1]
            inside = (x > x_low) & (x < x_high) & (y > y_low) & (y < y_high)
            labels = torch.where(inside.to(labels.device), labels, -1)
        host_labels = labels.cpu().numpy()
        if (host_labels >= num_classes).any():
            raise ValueError(
                f'a box is labelled {host_labels.max()}, but the head has {num_classes} classes; '
                "check the dataset's metainfo and the head's tasks"
            )
        if boxes.box_dim != BOX_DIM:
            raise ValueError(
                f'boxes have {boxes.box_dim} numbers; the head learns {BOX_DIM}, the last two a '
                'velocity: give the boxes of a dataset without velocities zeros there'
            )
        centred = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1).to(like)
        counted = host_labels >= 0
        kept = to_device(np.flatnonzero(counted), like, torch.long)
        ends = np.cumsum([len(sample.labels_3d) for sample in samples])
        counts = [int(part.sum()) for part in np.split(counted, ends[:-1])]
        return cls(centred[kept], labels.to(like.device)[kept], host_labels[counted], tuple(counts))

    def by_task(self, num_classes: Sequence[int]) -> list[list[np.ndarray]]:
        """Indices into the N boxes, by task and sample, of the boxes of the task's classes.

        Args:
            num_classes: number of classes of each task; labels are numbered across tasks.
        """
        task = np.searchsorted(np.cumsum(num_classes), self.host_labels, side='right')
        sample = np.repeat(np.arange(len(self.counts)), self.counts)
        return [
            [np.flatnonzero((task == t) & (sample == b)) for b in range(len(self.counts))]
            for t in range(len(num_classes))
        ]
