"""The official score of chosen frames, whatever split they are of.

The official evaluation wants predictions for a whole official split. Here true and predicted boxes
are those of chosen frames; loading, filters, matching and scores are the dev-kit's own.
"""

import functools
from collections.abc import Sequence

from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval

from .matches import Matches


class OfficialScorer:
    """Scores predicted boxes of chosen frames.

    Args:
        nusc: the database.
        tokens: samples that are scored.
        config: the official settings.
    """

    def __init__(self, nusc: NuScenes, tokens: Sequence[str], config: DetectionConfig) -> None:
        self.nusc = nusc
        self.tokens = list(tokens)
        self.config = config

    def score(self, predicted: EvalBoxes) -> tuple[DetectionMetrics, Matches]:
        """The official metrics, and the matches behind them.

        Args:
            predicted: boxes of each of the samples, possibly none; those that the official
                evaluation does not count are taken out of it.

        Raises:
            ValueError: the boxes are of other samples.
        """
        # Matching comes first: it notices other samples.
        predicted = self._counted(predicted)
        matches = Matches.of(self._truth, predicted, self.config)
        metrics, _ = _BoxesEval(self.config, self._truth, predicted).evaluate()
        return metrics, matches

    @functools.cached_property
    def _truth(self) -> EvalBoxes:
        return self._counted(load_gt_of_sample_tokens(self.nusc, self.tokens, DetectionBox))

    def _counted(self, boxes: EvalBoxes) -> EvalBoxes:
        """Without the boxes that are too far, have no points or stand in a bicycle rack."""
        if not boxes.all:
            return boxes  # which the dev-kit's filter cannot do
        return filter_eval_boxes(
            self.nusc, add_center_dist(self.nusc, boxes), self.config.class_range
        )


class _BoxesEval(DetectionEval):
    """The official evaluation, of boxes that are loaded and filtered already."""

    def __init__(self, config: DetectionConfig, truth: EvalBoxes, predicted: EvalBoxes) -> None:
        self.cfg = config
        self.gt_boxes = truth
        self.pred_boxes = predicted
        self.verbose = False
