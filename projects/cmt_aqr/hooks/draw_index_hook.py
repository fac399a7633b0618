"""Hook that tells workers the epoch, so that failures are drawn anew in each."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.failures import DrawIndex
from .pipelines import check_epochs, transforms_of


@HOOKS.register_module()
class DrawIndexHook(Hook):
    """Sets the epoch of every ``DrawIndex`` in the training pipeline.

    A ``DrawIndex`` gives no sample without this hook; without a ``DrawIndex`` the hook does
    nothing. The epoch is set before the loader asks its workers for a sample of it, so no sample is
    drawn by a wrong epoch, and a resumed run draws what it would have drawn.

    Raises:
        ValueError: before an epoch, the run does not count epochs.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch."""
        for draw_index in transforms_of(runner.train_dataloader.dataset, DrawIndex):
            if draw_index.by_epoch:
                check_epochs(runner, 'DrawIndex numbers draws', 'set by_epoch=False')
                draw_index.set_epoch(runner.epoch)
