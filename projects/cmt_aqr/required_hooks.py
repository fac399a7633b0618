"""Hooks that a model cannot train without; a training step without one of them is an error.

Any program can start a training with any list of hooks, and a missing hook shows in no loss. So a
hook notes on the model that it runs, and the model reads the notes in its first training step.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from .freezing import frozen_modules
from .running_hooks import running_hooks
from .transformer import RoutingForm


class RequiresHooks:
    """Mixin of a detector: its first training step raises if a hook that it needs does not run.

    It overrides ``parse_losses``, the one method that both mmengine's ``train_step`` and that of
    ``MMDistributedDataParallel`` call. Code without a Runner that sums the losses itself is free.
    """

    _has_hooks = False

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the losses, and what is logged, as in mmengine.

        Raises:
            RuntimeError: a hook that the model needs does not run.
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
    """Name of each hook that the model needs, and what it does for the model."""
    frozen = dict.fromkeys(name.split('.')[0] for name in frozen_modules(model))
    if frozen:
        yield 'FreezeAuditHook', f'proves that what is frozen in {", ".join(frozen)} did not move'
    for name, module in model.named_modules():
        if isinstance(module, RoutingForm) and module.learns_scales:
            yield 'BiasScaleHook', f'keeps the scales of {name} in their range'
