"""Scores of a validation under their short names."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

NAMES = ('mAP', 'NDS')


@HOOKS.register_module()
class ScoreNamesHook(Hook):
    """Adds ``mAP`` and ``NDS`` to the metrics, so that ``save_best='NDS'`` finds its score.

    MMDetection3D calls them ``NuScenes metric/pred_instances_3d_NuScenes/NDS`` and so on; these
    names are kept beside the short ones. Runs before the ``CheckpointHook``.
    """

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the short names."""
        for name, value in [*(metrics or {}).items()]:
            short = name.rsplit('/', 1)[-1]
            if short in NAMES:
                metrics[short] = value

    after_test_epoch = after_val_epoch
