"""Hook that ends the pasting of objects for the last epochs of a training."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..datasets.object_sampling import JointObjectSample
from .pipelines import check_epochs, transforms_of


@HOOKS.register_module()
class StopObjectSampleHook(Hook):
    """Hook that stops pasting objects (``JointObjectSample``) for the last epochs.

    The hook decides before every epoch, so it also works for a resumed run, and reaches persistent
    workers before they are asked for a sample. mmdet3d's ``DisableObjectSampleHook`` acts in one
    epoch only, which a run that resumes later misses. Without a ``JointObjectSample`` it does
    nothing.

    Args:
        num_last_epochs: number of epochs without pasted objects; 5 of 20 in CMT.

    Raises:
        ValueError: ``num_last_epochs`` is negative, or, before an epoch, the run does not count
            epochs.
    """

    def __init__(self, *, num_last_epochs: int) -> None:
        if num_last_epochs < 0:
            raise ValueError(f'num_last_epochs is {num_last_epochs}; it must be at least 0')
        self.num_last_epochs = num_last_epochs
        self._was_stopped = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Stop or resume pasting for this epoch."""
        samplings = [*transforms_of(runner.train_dataloader.dataset, JointObjectSample)]
        if not samplings:
            return
        check_epochs(runner, 'StopObjectSampleHook stops pasting', 'leave it out')
        stopped = runner.epoch >= runner.max_epochs - self.num_last_epochs
        if stopped and not self._was_stopped:
            print_log(f'no objects are pasted from epoch {runner.epoch + 1} on', logger='current')
        self._was_stopped = stopped
        for sampling in samplings:
            sampling.set_stopped(stopped)
