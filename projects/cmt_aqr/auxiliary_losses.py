"""Losses that a module of a detector computes in its forward pass, beside those of the head.

A module sets its attribute ``auxiliary_losses``, a dict of tensors whose names contain ``loss``, in
every forward pass in training mode. The detector takes them into the losses of the run.
"""

from __future__ import annotations

from torch import Tensor, nn


def take_auxiliary_losses(model: nn.Module) -> dict[str, Tensor]:
    """The auxiliary losses of all modules, summed by name, and removed from the modules."""
    losses: dict[str, Tensor] = {}
    for module in model.modules():
        for name, loss in vars(module).pop('auxiliary_losses', {}).items():
            losses[name] = losses[name] + loss if name in losses else loss
    return losses
