"""Record on the model of the required hooks that run; :mod:`.required_hooks` reads it."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def note_running(model: nn.Module, hook: str) -> None:
    """Record on ``model`` that a hook runs.

    Args:
        model: the Runner's model, possibly wrapped for distributed training.
        hook: name of the registered class.
    """
    if is_model_wrapper(model):
        model = model.module
    model.running_hooks = running_hooks(model) | {hook}


def running_hooks(model: nn.Module) -> frozenset[str]:
    """Names of the recorded hooks."""
    return getattr(model, 'running_hooks', frozenset())
