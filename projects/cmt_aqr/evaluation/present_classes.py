"""Official scores with the mean AP over those classes that occur in the ground truth."""

from collections.abc import Sequence

import numpy as np
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import METRICS
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, load_gt
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig

EVAL_SETS = {'v1.0-mini': 'mini_val', 'v1.0-trainval': 'val'}


@METRICS.register_module()
class PresentClassesMetric(NuScenesMetric):
    """``NuScenesMetric`` that also reports ``mAP_present`` and the AP of each class in it.

    On a small database the official mAP counts classes without a single scored box as 0.
    ``mAP_present`` is the mean of the official APs over the classes with at least one ground-truth
    box that the official score does not filter out (points inside, within the class's distance).
    Arguments and all other numbers are the parent's. The tables are read a second time.
    """

    def _evaluate_single(
        self, result_path: str, classes: Sequence[str], result_name: str = 'pred_instances_3d'
    ) -> dict[str, float]:
        """Official numbers, ``mAP_present``, and ``<class>_AP`` of each class that it averages."""
        detail = super()._evaluate_single(result_path, classes, result_name)
        prefix = f'{result_name}_NuScenes'
        present = scored_classes(
            NuScenes(version=self.version, dataroot=self.data_root, verbose=False),
            EVAL_SETS[self.version],
            self.eval_detection_configs,
        )
        aps = {
            name: np.mean(
                [
                    detail[f'{prefix}/{name}_AP_dist_{distance}']
                    for distance in self.eval_detection_configs.dist_ths
                ]
            )
            for name in classes
            if name in present
        }
        detail.update({f'{prefix}/{name}_AP': float(ap) for name, ap in aps.items()})
        detail[f'{prefix}/mAP_present'] = float(np.mean(list(aps.values())))
        return detail


def scored_classes(nusc: NuScenes, eval_set: str, config: DetectionConfig) -> set[str]:
    """Detection names with at least one ground-truth box that the official score counts.

    Args:
        nusc: The database.
        eval_set: Its official split, for example ``mini_val``.
        config: Distances up to which each class is scored.
    """
    boxes = add_center_dist(nusc, load_gt(nusc, eval_set, DetectionBox))
    return {box.detection_name for box in filter_eval_boxes(nusc, boxes, config.class_range).all}
