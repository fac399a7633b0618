"""Losses on hand-made predictions."""

import pytest
import torch
from ground_truth import truth_of

from projects.cmt_aqr.matching import SetCriterion, criterion
from projects.cmt_aqr.matching.box_coder import encode_boxes
from projects.cmt_aqr.matching.criterion import NoisedTargets
from projects.cmt_aqr.matching.matcher import TaskOutput

BOX = torch.tensor([[1.0, 2, 0, 4, 2, 1.5, 0.3, 1, 0], [-5.0, 3, 1, 1, 1, 2, -1, 0, 0]])


def make_criterion(num_classes=(3,), **options):
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
        **options,
    )


def matched(codes, logits, boxes=BOX, labels=(0, 2), num_classes=(3,)):
    """Classification and box loss of one layer and one sample; ``logits`` of each task."""
    tasks = [TaskOutput(codes[None], task[None]) for task in logits]
    losses = make_criterion(num_classes)(tasks, truth_of((boxes, labels)))
    assert losses.keys() == {'loss_cls', 'loss_bbox'}
    return losses['loss_cls'], losses['loss_bbox']


def denoised(codes, logits, *, targets, raw, num_classes=(3,)):
    """Classification and box loss of two denoising queries in one layer."""
    learned = [TaskOutput(torch.zeros(1, 1, 4, 10), torch.zeros(1, 1, 4, n)) for n in num_classes]
    noised = [TaskOutput(codes[None], task[None]) for task in logits]
    targets = NoisedTargets(BOX, torch.tensor(targets), torch.tensor(raw))
    truth = truth_of((BOX[:0], ()))
    losses = make_criterion(num_classes, denoising_share=0.5)(learned, truth, noised, targets)
    return losses['dn_loss_cls'], losses['dn_loss_bbox']


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
    cls, bbox = matched(codes, [logits])
    assert bbox.item() == 0
    assert cls.item() == pytest.approx(0, abs=1e-6)


def test_box_loss_is_divided_by_the_positives():
    codes, logits = perfect(3)
    codes[0, 0, 0] += 1  # one metre off
    _, bbox = matched(codes, [logits])
    assert bbox.item() == pytest.approx(0.25 / 2)


def test_each_number_of_a_box_has_its_weight():
    codes, logits = perfect(3)
    codes[0, 0, 8] += 1  # one metre a second
    criterion = make_criterion()
    criterion.code_weights = (*[1.0] * 8, 0.2, 0.2)
    losses = criterion([TaskOutput(codes[None], logits[None])], truth_of((BOX, (0, 2))))
    assert losses['loss_bbox'].item() == pytest.approx(0.25 * 0.2 / 2)


def test_tasks_take_the_boxes_of_their_own_classes():
    """Class 0 is the first task's, classes 1 and 2 are the second's."""
    codes, _ = perfect(3)
    first, second = torch.full((1, 4, 1), -20.0), torch.full((1, 4, 2), -20.0)
    first[0, 1, 0], second[0, 0, 1] = 20, 20
    cls, bbox = matched(codes, [first, second], num_classes=(1, 2))
    assert bbox.item() == 0
    assert cls.item() == pytest.approx(0, abs=1e-6)


def test_a_batch_without_a_box_trains():
    codes, logits = perfect(3)
    codes.requires_grad_()
    logits.requires_grad_()
    cls, bbox = matched(codes, [logits], boxes=BOX[:0], labels=())
    (cls + bbox).backward()
    assert bbox.item() == 0
    assert torch.isfinite(cls)
    assert codes.grad.abs().sum() == 0


def test_a_box_of_no_size_is_matched():
    codes, logits = perfect(3)
    flat = BOX.clone()
    flat[0, 5] = 0
    assert all(torch.isfinite(loss) for loss in matched(codes, [logits], boxes=flat))


def test_a_box_of_unknown_velocity_is_counted_but_not_regressed():
    codes, logits = perfect(3)
    codes[0, :2, 0] += 1
    unknown = BOX.clone()
    unknown[0, 7:] = torch.nan
    _, bbox = matched(codes, [logits], boxes=unknown)
    assert bbox.item() == pytest.approx(0.25 / 2)


def test_an_ignored_box_neither_counts_nor_is_matched():
    """MMDetection3D labels -1 the boxes of other classes."""
    codes, logits = perfect(3)
    codes[0, :2, 0] += 1
    alone = matched(codes, [logits], boxes=BOX[1:], labels=(2,))
    assert matched(codes, [logits], labels=(-1, 2)) == alone


@pytest.mark.parametrize(('index', 'name'), [(0, 'box code'), (1, 'class logit')])
@pytest.mark.parametrize('labels', [(0, 2), ()])
def test_diverged_predictions_are_named(index, name, labels):
    outputs = perfect(3)
    outputs[index][0, 0, 0] = torch.nan
    total = outputs[index].numel()
    with pytest.raises(FloatingPointError, match=f'1 of {total} {name}s are not finite'):
        matched(outputs[0], [outputs[1]], boxes=BOX[: len(labels)], labels=labels)


def test_a_cost_that_is_not_finite_is_named():
    damaged = BOX.clone()
    damaged[0, 0] = torch.nan
    codes, logits = perfect(3)
    with pytest.raises(FloatingPointError, match='a matching cost is not finite'):
        matched(codes, [logits], boxes=damaged)


def test_layers_and_samples_are_matched_apart():
    """The box loss of a batch is the mean of its samples', each matched by itself, per layer."""
    codes, logits = torch.randn(3, 2, 5, 10), torch.randn(3, 2, 5, 3)
    samples = [(BOX, (0, 2)), (BOX[:1], (1,))]
    losses = make_criterion()([TaskOutput(codes, logits)], truth_of(*samples))
    assert [*losses][:3] == ['d0.loss_cls', 'd0.loss_bbox', 'd1.loss_cls']
    for layer, prefix in enumerate(['d0.', 'd1.', '']):
        two, one = (
            matched(codes[layer, [b]], [logits[layer, [b]]], boxes=boxes, labels=labels)[1]
            for b, (boxes, labels) in enumerate(samples)
        )
        assert losses[f'{prefix}loss_bbox'].item() == pytest.approx((2 * two + one).item() / 3)


@pytest.mark.parametrize('num_layers', [1, 4])
@pytest.mark.parametrize('num_classes', [(3,), (1, 2)])
@pytest.mark.parametrize('boxes', [0, 2])
def test_one_all_reduce_whatever_the_batch(monkeypatch, num_layers, num_classes, boxes):
    reduced = []
    monkeypatch.setattr(criterion, 'reduce_mean', lambda x: reduced.append(x) or x)
    codes = torch.zeros(num_layers, 1, 4, 10)
    tasks = [TaskOutput(codes, torch.zeros(num_layers, 1, 4, n)) for n in num_classes]
    truth = truth_of((BOX[:boxes], (0, 2)[:boxes]))
    noised, targets = [TaskOutput(*(x[:, 0, :boxes] for x in task)) for task in tasks], None
    if boxes:
        targets = NoisedTargets(truth.boxes, truth.labels, truth.labels)
    losses = make_criterion(num_classes, denoising_share=0.5)(tasks, truth, noised, targets)
    assert len(losses) == 4 * num_layers
    positives = [boxes] if len(num_classes) == 1 else [boxes // 2] * 2
    expected = [[p + 0.1 * (4 - p), p] for p in positives] + [[boxes * 0.5, boxes]]
    (counts,) = reduced
    torch.testing.assert_close(counts, torch.tensor(expected))


def test_denoising_by_hand():
    """Two queries know their boxes; the second was made background by the noise."""
    codes = encode_boxes(BOX)
    codes[1, 0] += 2
    logits = torch.full((2, 3), -20.0)
    logits[0, 1] = 20
    cls, bbox = denoised(codes, [logits], targets=(1, 3), raw=(1, 2))
    assert cls.item() == pytest.approx(0, abs=1e-6)
    # A query made background still regresses its box.
    assert bbox.item() == pytest.approx(0.25 * 2 / 2)


def test_denoising_counts_every_query_in_every_task():
    codes = encode_boxes(BOX)
    codes[:, 0] += 1
    logits = [torch.zeros(2, 1), torch.zeros(2, 2)]
    _, bbox = denoised(codes, logits, targets=(0, 2), raw=(0, 2), num_classes=(1, 2))
    assert bbox.item() == pytest.approx(2 * 0.25 * 1 / 2)
