"""MMDetection3D's nuScenes metric on any samples and any of nuScenes' classes."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import METRICS
from mmengine.fileio import load
from mmengine.logging import print_log
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics

from ..data_preparation.data_root import check_tables
from ..files import dump_json
from .matches import Matches
from .official import OfficialScorer, official_config
from .predictions import Predictions

# Bytes of a table with an annotation; that of nuScenes' test split is an empty list.
_LEAST_ANNOTATION = 10


class Scored(NamedTuple):
    """Predictions and matches of an evaluation, for scoring again and for resampling."""

    predictions: Predictions
    matches: Matches


@METRICS.register_module()
class FramesMetric(NuScenesMetric):
    """``NuScenesMetric`` for the samples and classes of the tested dataset, whatever they are.

    On a whole validation split with all ten classes, the scores are those of ``NuScenesMetric``.
    Otherwise, all means are over the tested samples and the classes of the dataset. Metrics have
    the same names; in addition there are ``<class>_AP``, the mean over the four distances, and
    ``mAP_present``, the mean AP over the classes with at least one ground-truth box that counts.

    Args:
        data_root: data root of the database; that of the dataset by default.
        ann_file: info file of the samples; that of the dataset by default.
        options: further arguments of ``NuScenesMetric``.

    Attributes:
        scored: result of the last evaluation; None before it, and outside the main process.
    """

    def __init__(
        self, *, data_root: str | None = None, ann_file: str | None = None, **options
    ) -> None:
        super().__init__(data_root=data_root, ann_file=ann_file, **options)
        self.scored: Scored | None = None
        self._scorer: OfficialScorer | None = None

    def process(self, data_batch: Mapping, data_samples: Sequence[Mapping]) -> None:
        """Keeps the predictions of a batch; the first batch checks what the score will need.

        Raises:
            ValueError: a sample has no token or is not in the info file, nuScenes has no such
                class, or there are no annotations.
            FileNotFoundError: the data root has no tables of the version.
        """
        if not self.results:
            self._check(data_samples[0])
        super().process(data_batch, data_samples)
        new = self.results[-len(data_samples) :]
        for result, sample in zip(new, data_samples, strict=True):
            result['token'] = sample['token']

    def _check(self, sample: Mapping) -> None:
        meta = self.dataset_meta
        self.data_root = self.data_root or meta.get('data_root')
        self.ann_file = self.ann_file or meta.get('ann_file')
        if None in (self.data_root, self.ann_file):
            raise ValueError('FramesMetric: give data_root and ann_file, or use a CmtDataset')
        if 'token' not in sample:
            raise ValueError("FramesMetric: meta_keys of the packing transform must have 'token'")
        if sample['token'] not in self._infos:
            raise ValueError(
                f'FramesMetric: sample {sample["token"]} is not in {self.ann_file}, which must be '
                'the info file of the dataset; leave ann_file out to take it from there'
            )
        if not self.format_only:
            official_config(meta['classes'])
            tables = check_tables(self.data_root, meta['version']) / meta['version']
            if (tables / 'sample_annotation.json').stat().st_size < _LEAST_ANNOTATION:
                raise ValueError(
                    f'FramesMetric: {tables} has no annotations, so nothing can be scored; results '
                    'for the test server: tools/test.py --submission FOLDER'
                )

    @functools.cached_property
    def _infos(self) -> dict[str, dict]:
        return {info['token']: info for info in load(self.ann_file)['data_list']}

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores of all results."""
        classes, self.version = self.dataset_meta['classes'], self.dataset_meta['version']
        # The parent finds the pose of a sample by its place in this list.
        self.data_infos = [self._infos[result['token']] for result in results]
        placed = [dict(result, sample_idx=place) for place, result in enumerate(results)]
        files, folder = self.format_results(placed, classes, self.jsonfile_prefix)
        scores = {} if self.format_only else self.nus_evaluate(files, classes=classes)
        if folder is not None:
            folder.cleanup()
        return scores

    def _evaluate_single(
        self, result_path: str, classes: Sequence[str], result_name: str = 'pred_instances_3d'
    ) -> dict[str, float]:
        """Scores of the boxes in a result file."""
        limit = self.eval_detection_configs.max_boxes_per_sample
        boxes, meta = load_prediction(result_path, limit, DetectionBox)
        predictions = Predictions.of(boxes)
        scorer = self._find_scorer()
        metrics, matches = scorer.score(boxes)
        self.scored = Scored(predictions, matches)
        names = scorer.config.class_names
        if len(names) < len(scorer.config.class_range):
            print_log(
                f"mAP and NDS are means over the model's {len(names)} classes "
                f"({', '.join(names)}), not over nuScenes' {len(scorer.config.class_range)}",
                logger='current',
            )
        summary = {**metrics.serialize(), 'meta': meta}
        dump_json(Path(result_path).with_name('metrics_summary.json'), summary)
        detail = self._detail(metrics, scorer.config, matches)
        return {f'{result_name}_NuScenes/{name}': float(value) for name, value in detail.items()}

    def _detail(
        self, metrics: DetectionMetrics, config: DetectionConfig, matches: Matches
    ) -> dict[str, float]:
        """Metrics by name."""
        detail = {}
        for name in config.class_names:
            for distance in config.dist_ths:
                detail[f'{name}_AP_dist_{distance}'] = metrics.get_label_ap(name, distance)
            for error in self.ErrNameMapping:
                detail[f'{name}_{error}'] = metrics.get_label_tp(name, error)
            detail[f'{name}_AP'] = metrics.mean_dist_aps[name]
        for error, name in self.ErrNameMapping.items():
            detail[name] = metrics.tp_errors[error]
        present = np.flatnonzero(matches.truths.sum(axis=1))
        aps = [metrics.mean_dist_aps[config.class_names[label]] for label in present]
        detail['mAP_present'] = np.mean(aps) if aps else 0.0
        return {**detail, 'NDS': metrics.nd_score, 'mAP': metrics.mean_ap}

    def _find_scorer(self) -> OfficialScorer:
        """Scorer of these samples, kept with its ground truth for the next evaluation of them."""
        tokens = [info['token'] for info in self.data_infos]
        if self._scorer is None or self._scorer.tokens != tokens:
            config = official_config(self.dataset_meta['classes'])
            self._scorer = OfficialScorer(self._database, tokens, config)
        return self._scorer

    @functools.cached_property
    def _database(self) -> NuScenes:
        return NuScenes(version=self.version, dataroot=self.data_root, verbose=False)
