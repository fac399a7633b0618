"""Hook that refuses data that do not fit the model, before the first step."""

from collections.abc import Iterator

import numpy as np
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.utils.data import Dataset

from .pipelines import pipelines_of


@HOOKS.register_module()
class DataFitHook(Hook):
    """Compares every dataset of a run with the model.

    The classes of the dataset and of its transforms must be those of the head, in their order, and
    the range of its transforms that of the model. Otherwise labels would be of other classes, or
    boxes and points be removed, without an error or only after an epoch. Models without a detection
    head are not checked.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Checks the datasets of the loops that this run has built.

        Raises:
            ValueError: a dataset does not fit.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'pts_bbox_head', None)
        if not hasattr(head, 'point_cloud_range'):  # none, or a head of MMDetection3D
            return
        for name in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{name}_loop', None)
            if isinstance(loop, BaseLoop):
                for problem in misfits(loop.dataloader.dataset, head):
                    raise ValueError(f'{name}_dataloader: {problem}')


def misfits(dataset: Dataset, head: nn.Module) -> Iterator[str]:
    """Yields one line for each contradiction between a dataset and a head.

    Args:
        dataset: the dataset, or a wrapper of it.
        head: has ``class_names`` and ``point_cloud_range``.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if classes is not None and tuple(classes) != head.class_names:
        yield (
            f'the dataset has the classes {list(classes)}, but the tasks of pts_bbox_head have '
            f'{list(head.class_names)}; give both the same list'
        )
    for pipeline in pipelines_of(dataset):
        for step in pipeline.transforms:
            name = type(step).__name__
            limits = getattr(step, 'pcd_range', getattr(step, 'point_cloud_range', None))
            if limits is not None and not np.allclose(limits, head.point_cloud_range, atol=1e-4):
                yield (
                    f'{name} has the range {np.round(limits, 4).tolist()}, but the model has '
                    f'{list(head.point_cloud_range)}; give both the same'
                )
            given = getattr(getattr(step, 'db_sampler', step), 'classes', None)
            if given is not None and tuple(given) != head.class_names:
                yield (
                    f'{name} has the classes {list(given)}, but the tasks of pts_bbox_head have '
                    f'{list(head.class_names)}; give both the same list'
                )
