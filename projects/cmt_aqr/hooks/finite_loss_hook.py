"""Stop a run whose loss is not finite, as DETR's training loop does."""

import math

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop training at the first loss that is infinite or not a number.

    The error lists every part of the loss and the samples of the batch, so that the step can be
    made again. The optimizer has taken that step already; because this hook goes before the
    checkpoint hook, its weights are never saved. mmdet's ``CheckInvalidLossHook`` looks at the sum
    only, every 50 iterations.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Check every entry of ``outputs`` whose name holds 'loss', as mmengine sums them.

        Raises:
            FloatingPointError: at least one of them is not finite.
        """
        losses = {
            name: float(torch.as_tensor(value).detach())
            for name, value in (outputs or {}).items()
            if 'loss' in name
        }
        if all(math.isfinite(value) for value in losses.values()):
            return
        parts = '\n'.join(f'  {name}: {value:g}' for name, value in losses.items())
        raise FloatingPointError(
            f'the loss is not finite in epoch {runner.epoch + 1}, iteration {runner.iter + 1}\n'
            f'{parts}\nsamples: {", ".join(_sample_names(data_batch)) or "unknown"}'
        )


def _sample_names(data_batch: dict | None) -> list[str]:
    """Token of each sample in the batch, or its index where the dataset gives no token."""
    names = []
    for sample in (data_batch or {}).get('data_samples', []):
        metainfo = sample.metainfo
        names.append(str(metainfo.get('token', metainfo.get('sample_idx', 'unnamed'))))
    return names
