"""Scores of all frames against NuScenesMetric, and of some against the dev-kit on those alone."""

import numpy as np
import pytest
import torch
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.evaluation import NuScenesMetric
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes

from projects.cmt_aqr.data_preparation.single_frame import VERSION
from projects.cmt_aqr.evaluation import FramesMetric
from projects.cmt_aqr.evaluation.match_scores import score
from projects.cmt_aqr.evaluation.official import OfficialScorer
from projects.cmt_aqr.evaluation.predictions import Predictions

CLASSES = [*config_factory('detection_cvpr_2019').class_names]
INFOS = 'nuscenes_infos_val.pkl'


@pytest.fixture(scope='module')
def evaluate(synthetic_root):
    """A function that scores shaken true boxes by a metric: its scores without their prefix."""

    def evaluate(metric, indices=None, most=None):
        dataset = NuScenesDataset(
            data_root=str(synthetic_root),
            ann_file=INFOS,
            pipeline=[],
            indices=indices,
            metainfo=dict(classes=CLASSES, version=VERSION),
            data_prefix=dict(pts='', sweeps=''),
            box_type_3d='LiDAR',
        )
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            metric.process({}, [_prediction(dataset, index, most)])
        scores = metric.evaluate(len(dataset))
        return {name.rsplit('/', 1)[-1]: value for name, value in scores.items()}

    return evaluate


def _prediction(dataset, index, most):
    """The true boxes of a frame, at most so many, each moved by its own small random step."""
    truth = dataset.parse_ann_info(dataset.get_data_info(index))
    known = truth['gt_labels_3d'] >= 0
    boxes = truth['gt_bboxes_3d'][known].clone()
    rng = np.random.default_rng(len(boxes.tensor))
    boxes.tensor[:, :7] += torch.as_tensor(rng.normal(0, 0.5, (len(boxes.tensor), 7)))
    boxes.tensor[:, 3:6] = boxes.tensor[:, 3:6].clamp(min=0.2)
    boxes.tensor[:, 7:] = 0.1
    prediction = dict(
        bboxes_3d=boxes[:most],
        labels_3d=torch.as_tensor(truth['gt_labels_3d'][known])[:most],
        scores_3d=torch.as_tensor(rng.random(len(boxes.tensor)))[:most],
    )
    return dict(pred_instances_3d=prediction, pred_instances={}, sample_idx=index)


@pytest.fixture
def metric(synthetic_root):
    def metric(kind=FramesMetric, **options):
        return kind(data_root=str(synthetic_root), ann_file=str(synthetic_root / INFOS), **options)

    return metric


def test_all_frames_score_as_by_mmdetection3d(metric, evaluate):
    ours, theirs = evaluate(metric()), evaluate(metric(NuScenesMetric))
    assert 0.05 < ours['mAP'] < 0.9
    assert ours['mAP'] == pytest.approx(theirs['mAP'], abs=1e-9)
    assert ours['NDS'] == pytest.approx(theirs['NDS'], abs=1e-9)
    for name in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4)  # which it rounds


def test_some_frames_are_scored_against_their_own_truth(metric, evaluate):
    """The same boxes, resampled: the frames in once, and not at all."""
    every = metric()
    evaluate(every)
    some = metric(indices=[1, 4])
    scores = evaluate(some, indices=[1, 4])
    counts = np.zeros(len(every.scored.matches.tokens), dtype=int)
    counts[[1, 4]] = 1
    expected = score(every.scored.matches, some.eval_detection_configs, counts)
    assert scores['mAP'] == pytest.approx(expected.mean_ap, abs=1e-9)
    assert scores['NDS'] == pytest.approx(expected.nds, abs=1e-9)
    assert [*some.scored.matches.tokens] == [*every.scored.matches.tokens[[1, 4]]]


def test_what_is_kept_gives_the_same_scores(metric, evaluate, synthetic_root, tmp_path):
    """From the matches to 1e-6, and from the predictions on disk, filtered and matched anew."""
    kept = metric()
    scores = evaluate(kept)
    config = kept.eval_detection_configs
    from_matches = score(kept.scored.matches, config)
    assert from_matches.mean_ap == pytest.approx(scores['mAP'], abs=1e-6)
    assert from_matches.nds == pytest.approx(scores['NDS'], abs=1e-6)

    kept.scored.predictions.save(tmp_path / 'predictions.npz')
    boxes = Predictions.load(tmp_path / 'predictions.npz').boxes()
    nusc = NuScenes(VERSION, str(synthetic_root), verbose=False)
    again, _ = OfficialScorer(nusc, boxes.sample_tokens, config).score(boxes)
    assert again.mean_ap == pytest.approx(scores['mAP'], abs=1e-6)
    assert again.nd_score == pytest.approx(scores['NDS'], abs=1e-6)


def test_a_model_that_finds_nothing_scores_zero(metric, evaluate):
    blind = metric()
    scores = evaluate(blind, most=0)
    assert (scores['mAP'], scores['NDS']) == (0, 0)
    assert len(blind.scored.predictions.score) == 0
    assert len(blind.scored.matches.tokens) == 6


def test_boxes_of_other_samples_are_refused(synthetic_root):
    nusc = NuScenes(VERSION, str(synthetic_root), verbose=False)
    one, two = (sample['token'] for sample in nusc.sample[:2])
    boxes = EvalBoxes()
    boxes.add_boxes(two, [])
    with pytest.raises(ValueError, match='not the same'):
        OfficialScorer(nusc, [one], config_factory('detection_cvpr_2019')).score(boxes)
