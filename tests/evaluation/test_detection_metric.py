"""Scores of own classes, against the official evaluation of the same boxes."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from projects.cmt_aqr.evaluation import DetectionMetric

CLASSES = ('crate', 'van')
# x, y, z of the centre, length, width, height, yaw, velocity.
CRATE = [10.0, 0, 1, 1, 1, 1, 0.2, 0, 0]
VAN = [0.0, 60, 1, 6, 2, 2, 1.5, 3, 0]


def boxes(*rows):
    numbers = torch.tensor(rows).reshape(-1, 9)
    return LiDARInstance3DBoxes(numbers, box_dim=9, origin=(0.5, 0.5, 0.5))


def score(
    found, labels=(0, 1), scores=(0.9, 0.8), truth=(CRATE, VAN), true_labels=(0, 1), **options
):
    """Metrics of one sample with these boxes and another without any, without their prefix."""
    metric = DetectionMetric(**options)
    metric.dataset_meta = dict(classes=CLASSES)
    samples = [((found, labels, scores), (truth, true_labels)), (((), (), ()), ((), ()))]
    for number, (predicted, annotated) in enumerate(samples):
        instances = dict(
            bboxes_3d=boxes(*predicted[0]),
            labels_3d=torch.tensor(predicted[1], dtype=torch.long),
            scores_3d=torch.tensor(predicted[2]),
        )
        info = dict(
            gt_bboxes_3d=boxes(*annotated[0]), gt_labels_3d=np.array(annotated[1], dtype=np.int64)
        )
        metric.process(
            {}, [dict(sample_idx=number, pred_instances_3d=instances, eval_ann_info=info)]
        )
    return {name.split('/')[1]: value for name, value in metric.evaluate(2).items()}


def test_the_truth_scores_one():
    scores = score((CRATE, VAN), with_velocity=True)
    errors = ('mATE', 'mASE', 'mAOE', 'mAVE')
    assert [scores.pop(name) for name in errors] == pytest.approx([0] * 4, abs=1e-6)
    assert scores == pytest.approx(dict(AP_crate=1, AP_van=1, mAP=1, mAP_present=1))


def test_a_shift_counts_by_its_distance():
    """1.5 m off: a hit within 2 and 4 m, not within 0.5 and 1 m."""
    moved = [CRATE[0] + 1.5, *CRATE[1:]]
    scores = score((moved, VAN))
    assert scores['AP_crate'] == pytest.approx(0.5)
    assert scores['mAP'] == pytest.approx(0.75)
    assert scores['mATE'] == pytest.approx(0.75)
    assert 'mAVE' not in scores


def test_boxes_that_are_too_far_do_not_count():
    assert score((CRATE, VAN), max_distance=50)['mAP'] == pytest.approx(0.5)
    by_class = score((CRATE,), (0,), (0.9,), max_distance=dict(crate=5, van=50))
    assert (by_class['mAP'], by_class['mAP_present']) == (0, 0)
    assert score((CRATE,), (0,), (0.9,), max_distance=50)['mAP_present'] == pytest.approx(1)


def test_ignored_annotations_are_no_ground_truth():
    scores = score((CRATE,), (0,), (0.9,), true_labels=(0, -1))
    expected = dict(AP_crate=1, AP_van=0, mAP=0.5, mAP_present=1)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_a_set_without_any_box_scores_zero():
    assert score((), (), (), truth=(), true_labels=())['mAP'] == 0


def test_mistakes_are_found_in_the_first_batch():
    metric = DetectionMetric(max_distance=dict(crate=5))
    metric.dataset_meta = dict(classes=CLASSES)
    with pytest.raises(ValueError, match=r"max_distance names \['crate'\]; the classes"):
        metric.process({}, [])
    metric = DetectionMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    sample = dict(token='a', pred_instances_3d={})
    with pytest.raises(ValueError, match=r'sample a has no annotations .*DumpResults'):
        metric.process({}, [sample])


def test_an_unknown_velocity_is_no_error():
    fast, unknown = [*VAN[:7], 8, 0], [30.0, 30, *VAN[2:7], np.nan, np.nan]
    found = (CRATE, fast, [*unknown[:7], 8, 0])
    scores = score(
        found, (0, 1, 1), (0.9, 0.8, 0.7), (CRATE, fast, unknown), (0, 1, 1), with_velocity=True
    )
    assert scores['mAVE'] == pytest.approx(0, abs=1e-6)
