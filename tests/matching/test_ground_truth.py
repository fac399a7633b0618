"""Ground truth of a batch."""

import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.matching import GroundTruth


def make_sample(numbers: int, labels: list[int]) -> InstanceData:
    boxes = LiDARInstance3DBoxes(torch.rand(len(labels), numbers), box_dim=numbers)
    return InstanceData(bboxes_3d=boxes, labels_3d=torch.tensor(labels))


def test_ignored_boxes_are_left_out_of_boxes_and_counts():
    samples = [make_sample(9, [-1, 1]), make_sample(9, [-1]), make_sample(9, [0, 0])]
    truth = GroundTruth.of(samples, num_classes=2, like=torch.zeros(1))
    assert truth.counts == (1, 0, 2)
    assert truth.labels.tolist() == truth.host_labels.tolist() == [1, 0, 0]
    torch.testing.assert_close(truth.boxes[0, 3:], samples[0].bboxes_3d.tensor[1, 3:])


def test_boxes_without_a_velocity_are_refused():
    with pytest.raises(ValueError, match=r'boxes have 7 numbers; the head learns 9'):
        GroundTruth.of([make_sample(7, [0])], num_classes=1, like=torch.zeros(1))


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match='a box is labelled 2, but the head has 2 classes'):
        GroundTruth.of([make_sample(9, [2])], num_classes=2, like=torch.zeros(1))


def test_boxes_beyond_the_range_along_x_or_y_are_left_out():
    centres = torch.tensor([[0, 0], [8, 0], [-8, 0], [0, 4], [0, -4], [7.9, -3.9], [0.0, 3.9]])
    boxes = torch.cat([centres, torch.full((7, 1), 99.0), torch.ones(7, 6)], dim=1)
    sample = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.arange(7)
    )
    truth = GroundTruth.of(
        [sample], num_classes=7, like=torch.zeros(1), point_cloud_range=[-8, -4, -3, 8, 4, 3]
    )
    assert truth.labels.tolist() == [0, 5, 6]  # none on the border, and any height
