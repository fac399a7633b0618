"""Tell the workers which epoch it is, so that failures are drawn anew."""

from __future__ import annotations

from collections.abc import Iterator

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Dataset

from ..datasets.failures import DrawIndex


@HOOKS.register_module()
class DrawIndexHook(Hook):
    """Sets every ``DrawIndex`` in the training pipeline to the epoch before it begins.

    ``tools/train.py`` adds it to every run; without a ``DrawIndex`` it does nothing. The epoch is
    set before the loader asks its workers for a sample of it, so no sample is drawn by the wrong
    one, and a resumed run draws what it would have drawn.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch.

        Raises:
            ValueError: if the run does not count epochs.
        """
        for draw_index in _draw_indices(runner.train_dataloader.dataset):
            if not isinstance(runner.train_loop, EpochBasedTrainLoop):
                raise ValueError(
                    'DrawIndex numbers draws by the epoch, which '
                    f'{type(runner.train_loop).__name__} does not count; take it out of the '
                    "pipeline, or train with train_cfg=dict(type='EpochBasedTrainLoop')"
                )
            draw_index.set_epoch(runner.epoch)


def _draw_indices(dataset: Dataset) -> Iterator[DrawIndex]:
    """Those in the pipeline of a dataset, or of the datasets that it wraps."""
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(transform, DrawIndex):
            yield transform
    wrapped = [getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())]
    for inner in wrapped:
        if inner is not None:
            yield from _draw_indices(inner)
