"""Tell the workers which epoch it is, so that failures are drawn anew."""

from __future__ import annotations

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..datasets.failures import DrawIndex
from .pipelines import transforms_of


@HOOKS.register_module()
class DrawIndexHook(Hook):
    """Sets every ``DrawIndex`` in the training pipeline to the epoch before it begins.

    A pipeline with a ``DrawIndex`` gives no sample without this hook; where there is none, the hook
    does nothing. The epoch is set before the loader asks its workers for a sample of it, so no
    sample is drawn by the wrong one, and a resumed run draws what it would have drawn.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch.

        Raises:
            ValueError: if the run does not count epochs.
        """
        for draw_index in transforms_of(runner.train_dataloader.dataset, DrawIndex):
            if not isinstance(runner.train_loop, EpochBasedTrainLoop):
                raise ValueError(
                    'DrawIndex numbers draws by the epoch, which '
                    f'{type(runner.train_loop).__name__} does not count; take it out of the '
                    "pipeline, or train with train_cfg=dict(type='EpochBasedTrainLoop')"
                )
            draw_index.set_epoch(runner.epoch)
