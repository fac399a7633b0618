"""Hook that stops a run whose loss is not finite, as DETR's training loop does."""

import math

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..samples import sample_names
from .divergence import loss_parts, stop


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at the first infinite or NaN loss.

    The error lists every part of the loss and the samples of the batch, so that the step can be
    repeated; the same is written beside the log. The hook runs before the checkpoint hook, so no
    weights of that step are saved. mmdet's ``CheckInvalidLossHook`` checks only the sum, every 50
    iterations.

    Raises:
        FloatingPointError: after an iteration, a part of its loss is not finite.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Check every part of the loss."""
        losses = loss_parts(outputs)
        if not all(math.isfinite(value) for value in losses.values()):
            samples = sample_names((data_batch or {}).get('data_samples', []))
            stop(runner, 'the loss is not finite', losses=losses, samples=samples)
