"""Scores from stored matches against the dev-kit's own, which sees the boxes themselves."""

import dataclasses

import numpy as np
import pytest
from detection_boxes import CONFIG, random_scene
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.evaluate import DetectionEval

from projects.cmt_aqr.evaluation.match_scores import score
from projects.cmt_aqr.evaluation.matches import Matches


def official(truth: EvalBoxes, predicted: EvalBoxes):
    """The dev-kit's metrics of boxes that need no filter."""
    evaluation = DetectionEval.__new__(DetectionEval)
    evaluation.cfg, evaluation.verbose = CONFIG, False
    evaluation.gt_boxes, evaluation.pred_boxes = truth, predicted
    return evaluation.evaluate()[0]


def assert_official(scores, truth, predicted):
    metrics = official(truth, predicted)
    assert scores.mean_ap == pytest.approx(metrics.mean_ap, abs=1e-9)
    assert scores.nds == pytest.approx(metrics.nd_score, abs=1e-9)
    for name, aps in zip(CONFIG.class_names, scores.aps, strict=True):
        for distance, ap in zip(CONFIG.dist_ths, aps, strict=True):
            assert ap == pytest.approx(metrics.get_label_ap(name, distance), abs=1e-9)
    for name, error in zip(TP_METRICS, scores.errors, strict=True):
        assert error == pytest.approx(metrics.tp_errors[name], abs=1e-9)


@pytest.mark.parametrize('seed', range(3))
def test_all_frames_once_score_as_the_official_evaluation_does(seed):
    truth, predicted = random_scene(30, seed=seed)
    scores = score(Matches.of(truth, predicted, CONFIG), CONFIG)
    assert 0.1 < scores.mean_ap < 0.8
    assert_official(scores, truth, predicted)


def test_a_frame_drawn_twice_counts_as_two_frames():
    truth, predicted = random_scene(20)
    counts = np.random.default_rng(1).multinomial(20, np.full(20, 1 / 20))
    assert counts.max() >= 2
    assert counts.min() == 0
    drawn_truth, drawn_predicted = EvalBoxes(), EvalBoxes()
    for token, count in zip(truth.sample_tokens, counts, strict=True):
        for copy in range(count):
            for source, target in ((truth, drawn_truth), (predicted, drawn_predicted)):
                boxes = [_renamed(box, f'{token}_{copy}') for box in source[token]]
                target.add_boxes(f'{token}_{copy}', boxes)
    scores = score(Matches.of(truth, predicted, CONFIG), CONFIG, counts)
    assert_official(scores, drawn_truth, drawn_predicted)


def _renamed(box, token):
    return type(box).deserialize({**box.serialize(), 'sample_token': token})


def test_equal_confidences_are_taken_in_the_official_order():
    truth, predicted = random_scene(10)
    for box in predicted.all:
        box.detection_score = round(box.detection_score, 1)
    assert_official(score(Matches.of(truth, predicted, CONFIG), CONFIG), truth, predicted)


def test_without_any_prediction_the_score_is_zero():
    truth, _ = random_scene(3)
    nothing = EvalBoxes()
    for token in truth.sample_tokens:
        nothing.add_boxes(token, [])
    scores = score(Matches.of(truth, nothing, CONFIG), CONFIG)
    assert (scores.mean_ap, scores.nds) == (0, 0)
    assert_official(scores, truth, nothing)


def test_few_hits_are_scored_as_official_too():
    """Where the recall stays below the least that counts, and where one box hits."""
    truth, predicted = random_scene(12, noise=6.0)
    assert_official(score(Matches.of(truth, predicted, CONFIG), CONFIG), truth, predicted)


def test_samples_without_predictions_must_be_listed():
    truth, predicted = random_scene(3)
    del predicted.boxes['frame001']
    with pytest.raises(ValueError, match='3 samples have true boxes, 2 samples have predicted'):
        Matches.of(truth, predicted, CONFIG)


def test_matches_survive_a_file(tmp_path):
    matches = Matches.of(*random_scene(4), CONFIG)
    matches.save(tmp_path / 'matches.npz')
    read = Matches.load(tmp_path / 'matches.npz')
    for field in dataclasses.fields(Matches):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(matches, field.name))
