"""Number of the epoch for the workers, so that failures are drawn anew in each."""

from __future__ import annotations

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..datasets.failures import DrawIndex
from .pipelines import transforms_of


@HOOKS.register_module()
class DrawIndexHook(Hook):
    """Sets the epoch of every ``DrawIndex`` in the training pipeline.

    A ``DrawIndex`` gives no sample without this hook; without a ``DrawIndex`` the hook does
    nothing. The epoch is set before the loader asks its workers for a sample of it, so no sample is
    drawn by a wrong epoch, and a resumed run draws what it would have drawn.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Sets the epoch.

        Raises:
            ValueError: the run does not count epochs.
        """
        for draw_index in transforms_of(runner.train_dataloader.dataset, DrawIndex):
            if not draw_index.by_epoch:
                continue
            if not isinstance(runner.train_loop, EpochBasedTrainLoop):
                raise ValueError(
                    'DrawIndex numbers draws by the epoch, which '
                    f'{type(runner.train_loop).__name__} does not count; set by_epoch=False, or '
                    "train with train_cfg=dict(type='EpochBasedTrainLoop')"
                )
            draw_index.set_epoch(runner.epoch)
