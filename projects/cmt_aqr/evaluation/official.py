"""Official scores on any selection of frames.

The official evaluation requires predictions for a whole official split. Here the ground truth and
the predictions are those of selected frames; loading, filters, matching and scores are the
devkit's own.
"""

import copy
import functools
from collections.abc import Sequence

from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval

from .matches import Matches


def official_config(classes: Sequence[str]) -> DetectionConfig:
    """Settings of the official evaluation, for means over these classes alone.

    Raises:
        ValueError: the official evaluation does not have a class.
    """
    config = copy.copy(config_factory('detection_cvpr_2019'))
    unknown = [name for name in classes if name not in config.class_range]
    if unknown:
        raise ValueError(
            f'the nuScenes score has no classes {unknown}; it has {list(config.class_range)}. For '
            "classes of one's own: evaluator dict(type='DetectionMetric')"
        )
    config.class_names = [name for name in config.class_range if name in classes]
    return config


class OfficialScorer:
    """Scores predicted boxes of selected frames.

    Args:
        nusc: the database.
        tokens: tokens of the selected samples.
        config: settings of the official evaluation.
    """

    def __init__(self, nusc: NuScenes, tokens: Sequence[str], config: DetectionConfig) -> None:
        self.nusc = nusc
        self.tokens = list(tokens)
        self.config = config

    def score(self, predicted: EvalBoxes) -> tuple[DetectionMetrics, Matches]:
        """Official metrics and matched boxes.

        Args:
            predicted: boxes by sample, an empty list for a sample without detections; boxes that
                the official evaluation ignores are removed in place.

        Raises:
            ValueError: the boxes belong to other samples.
        """
        # Matching comes first, since it checks the samples.
        predicted = self._counted(predicted)
        matches = Matches.of(self._truth, predicted, self.config)
        metrics, _ = BoxesEval(self.config, self._truth, predicted).evaluate()
        return metrics, matches

    @functools.cached_property
    def _truth(self) -> EvalBoxes:
        return self._counted(load_gt_of_sample_tokens(self.nusc, self.tokens, DetectionBox))

    def _counted(self, boxes: EvalBoxes) -> EvalBoxes:
        """Boxes without those that are too far, contain no points or stand in a bicycle rack."""
        if not boxes.all:
            return boxes  # the devkit's filter fails on them
        return filter_eval_boxes(
            self.nusc, add_center_dist(self.nusc, boxes), self.config.class_range
        )


class BoxesEval(DetectionEval):
    """The official evaluation of boxes that are already loaded and filtered."""

    def __init__(self, config: DetectionConfig, truth: EvalBoxes, predicted: EvalBoxes) -> None:
        self.cfg = config
        self.gt_boxes = truth
        self.pred_boxes = predicted
        self.verbose = False
