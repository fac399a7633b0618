"""Losses on hand-made predictions."""

import pytest
import torch

from projects.cmt_aqr.matching import SetCriterion
from projects.cmt_aqr.matching.box_coder import encode_boxes
from projects.cmt_aqr.matching.criterion import GroundTruth, NoisedTargets, TaskOutput

BOX = torch.tensor([[1.0, 2, 0, 4, 2, 1.5, 0.3, 1, 0], [-5.0, 3, 1, 1, 1, 2, -1, 0, 0]])


def make_criterion(num_classes=(3,)):
    return SetCriterion(
        num_classes=num_classes,
        assigner={
            'type': 'mmdet.HungarianAssigner',
            'match_costs': [
                {'type': 'mmdet.FocalLossCost', 'weight': 2.0},
                {'type': 'mmdet3d.BBox3DL1Cost', 'code_weights': [1.0] * 8},
            ],
        },
        loss_cls={'type': 'mmdet.FocalLoss', 'loss_weight': 2.0},
        loss_bbox={'type': 'mmdet.L1Loss', 'loss_weight': 0.25},
        code_weights=[1.0] * 10,
    )


def perfect(classes, order=(1, 0)):
    """Four queries, of which two give the two boxes in another order."""
    codes = torch.zeros(1, 4, 10)
    logits = torch.full((1, 4, classes), -20.0)
    for query, box in enumerate(order):
        codes[0, query] = encode_boxes(BOX[box])
    return codes, logits


def test_perfect_predictions_cost_nothing_whatever_their_order():
    codes, logits = perfect(3)
    logits[0, 0, 2], logits[0, 1, 0] = 20, 20
    truth = [GroundTruth(BOX, torch.tensor([0, 2]))]
    cls, bbox = make_criterion().matched([TaskOutput(codes, logits)], truth)
    assert bbox.item() == 0
    assert cls.item() == pytest.approx(0, abs=1e-6)


def test_box_loss_is_divided_by_the_positives():
    codes, logits = perfect(3)
    codes[0, 0, 0] += 1  # one metre off
    truth = [GroundTruth(BOX, torch.tensor([0, 2]))]
    _, bbox = make_criterion().matched([TaskOutput(codes, logits)], truth)
    assert bbox.item() == pytest.approx(0.25 / 2)


def test_tasks_take_the_boxes_of_their_own_classes():
    """Class 0 is the first task's, classes 1 and 2 are the second's."""
    codes, _ = perfect(3)
    first, second = torch.full((1, 4, 1), -20.0), torch.full((1, 4, 2), -20.0)
    first[0, 1, 0], second[0, 0, 1] = 20, 20
    tasks = [TaskOutput(codes, first), TaskOutput(codes, second)]
    truth = [GroundTruth(BOX, torch.tensor([0, 2]))]
    cls, bbox = make_criterion((1, 2)).matched(tasks, truth)
    assert bbox.item() == 0
    assert cls.item() == pytest.approx(0, abs=1e-6)


def test_a_batch_without_a_box_trains():
    codes, logits = perfect(3)
    codes.requires_grad_()
    logits.requires_grad_()
    truth = [GroundTruth(BOX[:0], torch.zeros(0, dtype=torch.long))]
    cls, bbox = make_criterion().matched([TaskOutput(codes, logits)], truth)
    (cls + bbox).backward()
    assert bbox.item() == 0
    assert torch.isfinite(cls)
    assert codes.grad.abs().sum() == 0


def test_a_box_of_no_size_is_matched():
    codes, logits = perfect(3)
    flat = BOX.clone()
    flat[0, 5] = 0
    truth = [GroundTruth(flat, torch.tensor([0, 2]))]
    losses = make_criterion().matched([TaskOutput(codes, logits)], truth)
    assert all(torch.isfinite(loss) for loss in losses)


def test_a_box_of_unknown_velocity_is_counted_but_not_regressed():
    codes, logits = perfect(3)
    codes[0, :2, 0] += 1
    unknown = BOX.clone()
    unknown[0, 7:] = torch.nan
    truth = [GroundTruth(unknown, torch.tensor([0, 2]))]
    _, bbox = make_criterion().matched([TaskOutput(codes, logits)], truth)
    assert bbox.item() == pytest.approx(0.25 / 2)


def test_diverged_predictions_are_named():
    codes, logits = perfect(3)
    codes[0, 0, 0] = torch.nan
    truth = [GroundTruth(BOX, torch.tensor([0, 2]))]
    with pytest.raises(FloatingPointError, match='1 of 40 box codes are not finite'):
        make_criterion().matched([TaskOutput(codes, logits)], truth)


def test_denoising_by_hand():
    """Two queries know their boxes; the second was made background by the noise."""
    codes = encode_boxes(BOX)
    codes[1, 0] += 2
    logits = torch.full((2, 3), -20.0)
    logits[0, 1] = 20
    targets = NoisedTargets(BOX, torch.tensor([1, 3]), torch.tensor([1, 2]))
    cls, bbox = make_criterion().denoising([TaskOutput(codes, logits)], targets, positive_share=0.5)
    assert cls.item() == pytest.approx(0, abs=1e-6)
    # A query made background still regresses its box.
    assert bbox.item() == pytest.approx(0.25 * 2 / 2)


def test_denoising_counts_every_query_in_every_task():
    codes = encode_boxes(BOX)
    codes[:, 0] += 1
    outputs = [TaskOutput(codes, torch.zeros(2, 1)), TaskOutput(codes, torch.zeros(2, 2))]
    targets = NoisedTargets(BOX, torch.tensor([0, 2]), torch.tensor([0, 2]))
    _, bbox = make_criterion((1, 2)).denoising(outputs, targets, positive_share=0.5)
    assert bbox.item() == pytest.approx(2 * 0.25 * 1 / 2)
