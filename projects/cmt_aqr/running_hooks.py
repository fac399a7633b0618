"""Names of the required hooks of a run, kept on its model for :mod:`.required_hooks`."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """A Runner's model without its wrapper for distributed training, if it has one."""
    return model.module if is_model_wrapper(model) else model


def note_running(model: nn.Module, hook: str) -> None:
    """Record on a Runner's model that the registered class ``hook`` runs."""
    model = unwrap(model)
    model.running_hooks = running_hooks(model) | {hook}


def running_hooks(model: nn.Module) -> frozenset[str]:
    """Names of the recorded hooks."""
    return getattr(model, 'running_hooks', frozenset())
