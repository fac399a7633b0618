"""Counts of a module's choices, which :class:`~projects.cmt_aqr.hooks.ChoiceLogHook` logs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChoiceCounter(nn.Module):
    """How often each of several options was chosen since the counts were last taken.

    Args:
        option: name of an option in the log, such as 'expert'.
        count: number of options.
    """

    def __init__(self, option: str, count: int) -> None:
        super().__init__()
        self.option = option
        # Not persistent: a log of this run, no part of the model.
        self.register_buffer('counts', torch.zeros(count), persistent=False)

    @torch.no_grad()
    def add(self, chosen: Tensor) -> None:
        """Count the choices (..., options), given as zeros and ones."""
        self.counts += chosen.reshape(-1, len(self.counts)).sum(dim=0)

    def take(self) -> list[float]:
        """Returns the share of each option and resets the counts; waits for the device."""
        shares = (self.counts / self.counts.sum().clamp(min=1)).tolist()
        self.counts.zero_()
        return shares
