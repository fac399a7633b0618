"""MMDetection3D's nuScenes metric on a subset of the validation frames."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import METRICS
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox

from .matches import Matches
from .official import OfficialScorer
from .predictions import Predictions


class Scored(NamedTuple):
    """Predictions and matches of an evaluation, for scoring again and for resampling."""

    predictions: Predictions
    matches: Matches


@METRICS.register_module()
class FramesMetric(NuScenesMetric):
    """``NuScenesMetric`` for a dataset of selected samples; on all samples the scores are the same.

    The metrics are ``mAP``, ``NDS``, the five mean errors, and ``AP_<class>`` over all distances.

    Args:
        data_root: data root of the database.
        ann_file: info file of the samples.
        indices: indices of the samples in the info file, as in the dataset's argument ``indices``;
            None for all samples.

    Attributes:
        scored: result of the last evaluation; None before it, and outside the main process.
    """

    def __init__(
        self, *, data_root: str, ann_file: str, indices: Sequence[int] | None = None
    ) -> None:
        super().__init__(data_root=data_root, ann_file=ann_file)
        self.indices = indices
        self.scored: Scored | None = None

    def format_results(
        self, results: list[dict], classes: Sequence[str], jsonfile_prefix: str | None
    ) -> tuple:
        """Format results whose indices count the selected samples."""
        if self.indices is not None:
            self.data_infos = [self.data_infos[index] for index in self.indices]
        return super().format_results(results, classes, jsonfile_prefix)

    def _evaluate_single(
        self, result_path: str, classes: Sequence[str], result_name: str
    ) -> dict[str, float]:
        """Scores of the boxes in a result file."""
        limit = self.eval_detection_configs.max_boxes_per_sample
        boxes, _ = load_prediction(result_path, limit, DetectionBox)
        predictions = Predictions.of(boxes)
        metrics, matches = self._scorer.score(boxes)
        self.scored = Scored(predictions, matches)
        return {
            'mAP': metrics.mean_ap,
            'NDS': metrics.nd_score,
            **{self.ErrNameMapping[name]: error for name, error in metrics.tp_errors.items()},
            **{f'AP_{name}': float(ap) for name, ap in metrics.mean_dist_aps.items()},
        }

    @functools.cached_property
    def _scorer(self) -> OfficialScorer:
        """Scorer with the tables and the ground truth, read once for all evaluations."""
        return OfficialScorer(
            NuScenes(version=self.version, dataroot=self.data_root, verbose=False),
            [info['token'] for info in self.data_infos],
            self.eval_detection_configs,
        )
