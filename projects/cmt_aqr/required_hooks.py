"""Hooks that a model needs in training; a training step without one of them is an error.

Any program can start a training with any list of hooks, and a missing hook affects no loss. Each
hook therefore records on the model that it runs, and the model checks the record in its first
training step.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from .freezing import frozen_modules
from .running_hooks import running_hooks
from .transformer import RoutingForm


class RequiresHooks:
    """Mixin for detectors that raises in the first training step if a required hook is missing.

    It overrides ``parse_losses``, the only method called by both mmengine's ``train_step`` and that
    of ``MMDistributedDataParallel``. Code that sums the losses itself is not checked.
    """

    _has_hooks = False

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the losses and the values to log, as in mmengine.

        Raises:
            RuntimeError: a required hook is missing.
        """
        if not self._has_hooks:
            _check(self)
            self._has_hooks = True
        return super().parse_losses(losses)


def _check(model: nn.Module) -> None:
    for hook, reason in _needed(model):
        if hook not in running_hooks(model):
            raise RuntimeError(
                f"this training runs without {hook}, which {reason}; add dict(type='{hook}') to "
                'the custom_hooks of the config'
            )


def _needed(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Name and purpose of each hook that the model needs."""
    frozen = ', '.join(dict.fromkeys(name.split('.')[0] for name in frozen_modules(model)))
    if frozen:
        yield 'FreezeAuditHook', f'verifies that the frozen parts of {frozen} do not change'
    for name, module in model.named_modules():
        if isinstance(module, RoutingForm) and module.learns_scales:
            yield 'BiasScaleHook', f'keeps the scales of {name} in their range'
