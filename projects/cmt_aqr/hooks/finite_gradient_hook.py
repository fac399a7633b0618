"""Hook that stops a run whose gradient is not finite, before the weights are updated."""

import functools
import math
from collections.abc import Callable

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.utils import get_total_norm

from ..running_hooks import unwrap
from ..samples import sample_names
from .divergence import loss_parts, stop


@HOOKS.register_module()
class FiniteGradientHook(Hook):
    """Stops training at the first infinite or NaN gradient, without taking the step.

    Even a finite loss can have such a gradient: from a root or norm at zero, or an overflow in the
    backward pass. Clipping by norm would spread it over all weights. The error lists the parts of
    the loss, the largest gradient of every part of the model, and the samples since the last step;
    the same is written beside the log. Processes of a distributed training have the same reduced
    gradients, so all of them stop, each with its own samples.

    Under ``AmpOptimWrapper`` such a gradient is part of the search for the loss scale, which skips
    the step. A run is then stopped if it skips more than ``max_skipped`` steps in a row, which no
    scale can remedy; PyTorch alone would continue forever.

    Args:
        max_skipped: maximum number of consecutive steps skipped under a loss scale; 20 steps lower
            PyTorch's initial scale of 65,536 to 1/16.

    Raises:
        ValueError: `max_skipped` is negative.
        FloatingPointError: after an iteration, its gradient is not finite.
    """

    priority = 'VERY_HIGH'

    def __init__(self, *, max_skipped: int = 20) -> None:
        if max_skipped < 0:
            raise ValueError(f'max_skipped is {max_skipped}; it must be 0 or greater')
        self.max_skipped = max_skipped
        self._samples: list[str] = []  # of the batches accumulated for the next step
        self._gradients: dict[str, float] = {}  # of a step that must end the run
        self._skipped = 0
        self._has_ended = False
        self._step_of_wrapper: Callable | None = None

    def before_train(self, runner: Runner) -> None:
        """Inspect gradients between backward and clipping, where mmengine has no hook."""
        self._step_of_wrapper = runner.optim_wrapper.step
        checked = functools.partial(self._step, runner)
        # Keeps the attributes by which mmengine's schedulers count steps.
        runner.optim_wrapper.step = functools.update_wrapper(checked, self._step_of_wrapper)

    def after_train(self, runner: Runner) -> None:
        """Restore the optimizer wrapper."""
        runner.optim_wrapper.step = self._step_of_wrapper

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Stop the run if the gradient of this iteration's step requires it."""
        self._samples += sample_names((data_batch or {}).get('data_samples', []))
        if self._gradients:
            in_a_row = f' for {self._skipped} steps in a row' if self._skipped > 1 else ''
            stop(
                runner,
                f'the gradient is not finite{in_a_row}',
                losses=loss_parts(outputs),
                samples=self._samples,
                gradients=self._gradients,
            )
        if self._has_ended:
            self._samples, self._has_ended = [], False

    def _step(self, runner: Runner, **kwargs) -> None:
        """Take the optimizer's step if the gradients are finite."""
        self._has_ended = True
        gradients = [p.grad for p in runner.model.parameters() if p.grad is not None]
        # The largest absolute value, unlike a sum, cannot overflow.
        if get_total_norm(gradients, norm_type=math.inf).isfinite():
            self._skipped = 0
            self._step_of_wrapper(**kwargs)
            return
        self._skipped += 1
        has_scale = hasattr(runner.optim_wrapper, 'loss_scaler')
        if not has_scale or self._skipped > self.max_skipped:
            self._gradients = largest_gradients(runner.model)
        if has_scale:
            self._step_of_wrapper(**kwargs)  # which skips it and lowers the scale


@torch.no_grad()
def largest_gradients(model: nn.Module) -> dict[str, float]:
    """Largest absolute gradient of each part, two names deep; NaN if any of its values is."""
    parts: dict[str, list[torch.Tensor]] = {}
    for name, parameter in unwrap(model).named_parameters():
        if parameter.grad is not None:
            part = '.'.join(name.split('.')[:2])
            parts.setdefault(part, []).append(parameter.grad.abs().max())
    return {part: float(torch.stack(values).max()) for part, values in parts.items()}
