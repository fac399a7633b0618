"""A note on the model of each hook that it cannot train without; see :mod:`.required_hooks`."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def note_running(model: nn.Module, hook: str) -> None:
    """Note on ``model``, which may be wrapped for distributed training, that a hook runs.

    Args:
        model: of the Runner.
        hook: name of the registered class.
    """
    if is_model_wrapper(model):
        model = model.module
    model.running_hooks = running_hooks(model) | {hook}


def running_hooks(model: nn.Module) -> frozenset[str]:
    """Names of the hooks that have noted themselves on ``model``."""
    return getattr(model, 'running_hooks', frozenset())
