"""Let the last epochs of a training see the data as they are, without pasted objects."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..datasets.object_sampling import JointObjectSample
from .pipelines import transforms_of


@HOOKS.register_module()
class StopObjectSampleHook(Hook):
    """Stops every ``JointObjectSample`` in the training pipeline before the last epochs.

    Found out anew before each epoch, so it holds for a resumed run, and told to workers that live
    on from epoch to epoch before they are asked for a sample. mmdet3d's ``DisableObjectSampleHook``
    acts in one epoch alone, which a run that resumes behind it misses. Without a
    ``JointObjectSample`` it does nothing.

    Args:
        num_last_epochs: epochs without pasted objects; 5 of 20 in CMT.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, *, num_last_epochs: int) -> None:
        if num_last_epochs < 0:
            raise ValueError(f'num_last_epochs is {num_last_epochs}; it must be at least 0')
        self.num_last_epochs = num_last_epochs
        self._was_stopped = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the transforms whether they paste in this epoch.

        Raises:
            ValueError: if the run does not count epochs.
        """
        samplings = [*transforms_of(runner.train_dataloader.dataset, JointObjectSample)]
        if not samplings:
            return
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'StopObjectSampleHook counts epochs, and {type(runner.train_loop).__name__} does '
                "not; leave it out, or train with train_cfg=dict(type='EpochBasedTrainLoop')"
            )
        stopped = runner.epoch >= runner.max_epochs - self.num_last_epochs
        if stopped and not self._was_stopped:
            print_log(f'no objects are pasted from epoch {runner.epoch + 1} on', logger='current')
        self._was_stopped = stopped
        for sampling in samplings:
            sampling.set_stopped(stopped)
