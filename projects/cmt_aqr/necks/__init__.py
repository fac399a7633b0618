"""Necks of CMT that mmdet lacks, and projectors for frozen encoders."""

from .cpfpn import CPFPN
from .layer_selection import ConcatLayers, MixedEncoders, WeightedLayers
from .projectors import FusedMLPProjector, LinearProjector, MLPProjector

__all__ = [
    'CPFPN',
    'ConcatLayers',
    'FusedMLPProjector',
    'LinearProjector',
    'MLPProjector',
    'MixedEncoders',
    'WeightedLayers',
]
