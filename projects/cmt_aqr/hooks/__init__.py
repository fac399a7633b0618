"""Hooks for mmengine's Runner."""

from .finite_loss_hook import FiniteLossHook
from .run_info_hook import RunInfoHook

__all__ = ['FiniteLossHook', 'RunInfoHook']
