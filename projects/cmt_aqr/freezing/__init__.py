"""Freezing that can be trusted: what is frozen, and that it stays so."""

from .layers import Layers, register_layers
from .policy import FreezePolicy, build_freezable, eval_norms, freeze, frozen_modules

__all__ = [
    'FreezePolicy',
    'Layers',
    'build_freezable',
    'eval_norms',
    'freeze',
    'frozen_modules',
    'register_layers',
]
