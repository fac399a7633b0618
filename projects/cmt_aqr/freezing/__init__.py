"""Freezing of modules, learning rates by module, and the audit that verifies both."""

from .audit_hook import FreezeAuditHook
from .building import build_freezable
from .fast_path import FastPath, add_fast_path, fast_path_of, renew_fast_paths, tensor_state
from .freeze_handle import eval_norms, freeze, frozen_modules
from .layers import Layers, register_layers
from .optimizer import StrictOptimWrapperConstructor
from .policy import FreezePolicy
from .unfreeze_hook import UnfreezeScheduleHook

__all__ = [
    'FastPath',
    'FreezeAuditHook',
    'FreezePolicy',
    'Layers',
    'StrictOptimWrapperConstructor',
    'UnfreezeScheduleHook',
    'add_fast_path',
    'build_freezable',
    'eval_norms',
    'fast_path_of',
    'freeze',
    'frozen_modules',
    'register_layers',
    'renew_fast_paths',
    'tensor_state',
]
