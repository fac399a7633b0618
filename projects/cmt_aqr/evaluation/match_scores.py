"""Official scores of matched boxes on any selection of frames, in milliseconds.

The steps are those of the devkit's ``accumulate``, ``calc_ap`` and ``calc_tp``.

Shapes: n boxes of one class, N boxes of all classes, F frames, K classes, D matching distances.
"""

from typing import NamedTuple

import numpy as np
from nuscenes.eval.detection.data_classes import DetectionConfig, DetectionMetricData

from .matches import Matches

_RECALLS = np.linspace(0, 1, DetectionMetricData.nelem)
# Which of the five errors the official evaluation averages, for classes that lack some of them.
_COUNTED = {
    'traffic_cone': (True, True, False, False, False),
    'barrier': (True, True, True, False, False),
}


class Scores(NamedTuple):
    """Official scores."""

    mean_ap: float
    nds: float
    aps: np.ndarray
    """(K, D) average precision of each class at each distance"""
    errors: np.ndarray
    """(5,) mean errors in the order of ``TP_METRICS``"""


def score(matches: Matches, config: DetectionConfig, counts: np.ndarray | None = None) -> Scores:
    """Score a selection of frames as the official evaluation would.

    As there, a class without ground-truth boxes in these frames has an average precision of 0.

    Args:
        matches: matched boxes of all frames.
        config: settings of the official evaluation with which the boxes were matched.
        counts: (F,) number of times each frame is counted; once by default.
    """
    if counts is None:
        counts = np.ones(len(matches.tokens), dtype=int)
    # Repeats the boxes of a frame as often as the frame is counted and keeps their order.
    boxes = np.repeat(np.arange(len(matches.label)), counts[matches.frame])
    starts = np.searchsorted(matches.label[boxes], range(len(config.class_names) + 1))
    truths = matches.truths @ counts

    aps = np.zeros((len(truths), len(config.dist_ths)))
    errors = np.ones((len(truths), 5))
    for label, name in enumerate(config.class_names):
        of_class = boxes[starts[label] : starts[label + 1]]
        if truths[label]:
            aps[label], errors[label] = _score_class(matches, of_class, truths[label], config)
        errors[label, ~np.array(_COUNTED.get(name, (True,) * 5))] = np.nan
    mean_errors = np.nanmean(errors, axis=0)
    mean_ap = aps.mean()
    total = config.mean_ap_weight * mean_ap + np.maximum(0, 1 - mean_errors).sum()
    nds = total / (config.mean_ap_weight + len(mean_errors))
    return Scores(float(mean_ap), float(nds), aps, mean_errors)


def _score_class(
    matches: Matches, boxes: np.ndarray, truths: int, config: DetectionConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Average precisions (D,) and errors (5,) of one class.

    Args:
        matches: matched boxes of all classes.
        boxes: (n,) indices of the boxes of this class, by descending confidence.
        truths: number of ground-truth boxes, at least 1.
        config: settings of the official evaluation.
    """
    aps = np.zeros(len(config.dist_ths))
    errors = np.ones(5)
    found = matches.hit[boxes].cumsum(axis=0)  # (n, D)
    first = round(100 * config.min_recall) + 1  # recalls up to the minimum do not count
    for column, distance in enumerate(config.dist_ths):
        if not len(boxes) or not found[-1, column]:
            continue
        hits = found[:, column].astype(float)
        recall = hits / truths
        precision = np.interp(_RECALLS, recall, hits / np.arange(1, len(boxes) + 1), right=0)
        gained = np.maximum(precision[first:] - config.min_precision, 0)
        aps[column] = gained.mean() / (1 - config.min_precision)
        if distance == config.dist_th_tp:
            confidence = np.interp(_RECALLS, recall, matches.score[boxes], right=0)
            errors = _mean_errors(matches, boxes[matches.hit[boxes, column]], confidence, first)
    return aps, errors


def _mean_errors(
    matches: Matches, hits: np.ndarray, confidence: np.ndarray, first: int
) -> np.ndarray:
    """Running mean of each error over the true positives, averaged over the reached recalls, (5,).

    Args:
        matches: matched boxes of all classes.
        hits: (h,) indices of the true positives of one class, by descending confidence; h >= 1.
        confidence: (101,) confidence at each recall; 0 at recalls that are not reached.
        first: index of the first recall that counts.
    """
    last = confidence.nonzero()[0].max(initial=0)
    if last < first:
        return np.ones(5)
    errors = matches.errors[hits]
    known = ~np.isnan(errors)
    sums, numbers = np.where(known, errors, 0).cumsum(axis=0), known.cumsum(axis=0)
    means = np.divide(sums, numbers, out=np.zeros_like(sums), where=numbers > 0)
    means[:, numbers[-1] == 0] = 1  # an error that is undefined for all hits counts as 1
    reached, scores = confidence[first : last + 1], matches.score[hits]
    return np.array([np.interp(reached, scores[::-1], column[::-1]).mean() for column in means.T])
