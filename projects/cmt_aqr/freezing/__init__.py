"""Freezing that can be trusted: what is frozen, and that it stays so."""

from .audit_hook import FreezeAuditHook
from .building import build_freezable, freeze
from .keeper import eval_norms, frozen_modules
from .layers import Layers, register_layers
from .optimizer import StrictOptimWrapperConstructor
from .policy import FreezePolicy
from .unfreeze_hook import UnfreezeScheduleHook

__all__ = [
    'FreezeAuditHook',
    'FreezePolicy',
    'Layers',
    'StrictOptimWrapperConstructor',
    'UnfreezeScheduleHook',
    'build_freezable',
    'eval_norms',
    'freeze',
    'frozen_modules',
    'register_layers',
]
