"""Freezing that can be trusted: what is frozen, and that it stays so."""

from .building import build_freezable, freeze
from .keeper import eval_norms, frozen_modules
from .layers import Layers, register_layers
from .policy import FreezePolicy

__all__ = [
    'FreezePolicy',
    'Layers',
    'build_freezable',
    'eval_norms',
    'freeze',
    'frozen_modules',
    'register_layers',
]
