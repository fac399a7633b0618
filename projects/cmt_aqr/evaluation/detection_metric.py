"""nuScenes' average precision and errors for any classes, against the samples' annotations."""

from collections.abc import Mapping, Sequence

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBox, EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig
from pyquaternion import Quaternion

from ..samples import sample_name
from .official import BoxesEval

# The devkit's errors that do not need nuScenes' attributes.
_ERRORS = dict(trans_err='mATE', scale_err='mASE', orient_err='mAOE', vel_err='mAVE')


class ClassBox(DetectionBox):
    """The devkit's box without its check that the class is one of nuScenes'."""

    def __init__(self, name: str, score: float, **box) -> None:
        EvalBox.__init__(self, **box)
        self.detection_name, self.detection_score, self.attribute_name = name, score, ''


class ClassConfig(DetectionConfig):
    """Settings of the official evaluation, for other classes and distances."""

    def __init__(self, max_distance: Mapping[str, float]) -> None:
        vars(self).update(vars(config_factory('detection_cvpr_2019')))
        self.class_range = dict(max_distance)
        self.class_names = list(max_distance)


@METRICS.register_module()
class DetectionMetric(BaseMetric):
    """Scores of any classes by nuScenes' definitions, for datasets that are not nuScenes.

    The ground truth is that of the tested samples, so any subset, scene or split can be scored.
    Computed by the devkit: ``AP_<class>``, the average precision over matches of centres within
    0.5, 1, 2 and 4 m on the ground; ``mAP``, its mean over the dataset's classes; and the mean
    errors of translation, scale and orientation of true positives within 2 m. As there, recalls and
    precisions below 0.1 do not count, and a class without ground truth has an AP of 0;
    ``mAP_present`` leaves such classes out. ``mAVE`` is computed where ``with_velocity``. NDS is
    not, since it needs nuScenes' attributes.

    Args:
        max_distance: horizontal distance from the LiDAR up to which boxes count, metres: one
            number, or one for each class; by default all boxes count.
        with_velocity: whether the annotations have velocities.
    """

    default_prefix = 'detection'

    def __init__(
        self,
        *,
        max_distance: float | Mapping[str, float] = float('inf'),
        with_velocity: bool = False,
    ) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.errors = [name for name in _ERRORS if with_velocity or name != 'vel_err']

    def process(self, data_batch: Mapping, data_samples: Sequence[Mapping]) -> None:
        """Keeps predicted and annotated boxes of a batch.

        Raises:
            ValueError: a sample has no annotations; or ``max_distance`` does not have the classes.
        """
        self._config()  # fails in the first batch rather than after the last
        for sample in data_samples:
            truth, found = sample.get('eval_ann_info'), sample['pred_instances_3d']
            if truth is None:
                raise ValueError(
                    f'DetectionMetric: sample {sample_name(sample)} has no annotations to compare '
                    "with; to save predictions alone: evaluator dict(type='DumpResults')"
                )
            labels = np.asarray(truth['gt_labels_3d'])
            true_boxes = _numbers(truth['gt_bboxes_3d'])
            pred_boxes = _numbers(found['bboxes_3d'])
            self.results.append(
                dict(
                    truth=(true_boxes, labels, np.ones(len(labels))),
                    found=(pred_boxes, found['labels_3d'].numpy(force=True),
                           found['scores_3d'].numpy(force=True)),
                )
            )  # fmt: skip

    def compute_metrics(self, results: Sequence[Mapping]) -> dict[str, float]:
        """Scores of all results."""
        config = self._config()
        truth, found = (self._boxes(results, kind, config) for kind in ('truth', 'found'))
        metrics, _ = BoxesEval(config, truth, found).evaluate()
        aps = {name: float(metrics.mean_dist_aps[name]) for name in config.class_names}
        present = {box.detection_name for box in truth.all}
        scores = {f'AP_{name}': ap for name, ap in aps.items()}
        scores['mAP'] = float(metrics.mean_ap)
        scores['mAP_present'] = float(np.mean([aps[name] for name in present] or [0.0]))
        return scores | {_ERRORS[name]: float(metrics.tp_errors[name]) for name in self.errors}

    def _config(self) -> ClassConfig:
        classes = self.dataset_meta['classes']
        if not isinstance(self.max_distance, Mapping):
            return ClassConfig(dict.fromkeys(classes, self.max_distance))
        if set(self.max_distance) != set(classes):
            raise ValueError(
                f'DetectionMetric: max_distance names {sorted(self.max_distance)}; the classes of '
                f'the dataset are {sorted(classes)}'
            )
        return ClassConfig({name: self.max_distance[name] for name in classes})

    def _boxes(self, results: Sequence[Mapping], kind: str, config: ClassConfig) -> EvalBoxes:
        """The devkit's boxes that count, with a list for every sample."""
        kept = EvalBoxes()
        for number, result in enumerate(results):
            boxes = []
            for numbers, label, score in zip(*result[kind], strict=True):
                name = config.class_names[label] if label >= 0 else None
                if name and np.hypot(*numbers[:2]) < config.class_range[name]:
                    boxes.append(_class_box(str(number), numbers, name, float(score)))
            kept.add_boxes(str(number), boxes)
        return kept


def _numbers(boxes) -> np.ndarray:
    """(N, 9) float64: x, y, z of the centre, length, width, height, yaw, velocity."""
    centres, rest = boxes.gravity_center, boxes.tensor[:, 3:]
    return np.hstack([centres.numpy(force=True), rest.numpy(force=True)]).astype(np.float64)


def _class_box(sample: str, numbers: np.ndarray, name: str, score: float) -> ClassBox:
    x, y, z, length, width, height, yaw, *velocity = numbers.tolist()
    return ClassBox(
        name,
        score,
        sample_token=sample,
        translation=(x, y, z),
        size=(width, length, height),
        rotation=tuple(Quaternion(axis=(0, 0, 1), radians=yaw).elements),
        velocity=tuple(velocity),
    )
