"""Necks of CMT that mmdet lacks, and projectors for frozen encoders."""

from .choice_counter import ChoiceCounter
from .cpfpn import CPFPN
from .layer_selection import AdaptiveLayers, MixedEncoders, WeightedLayers
from .mixture_of_experts import AdaptiveMoEProjector, MoEProjector
from .projectors import FusedMLPProjector, LinearProjector, MLPProjector

__all__ = [
    'CPFPN',
    'AdaptiveLayers',
    'AdaptiveMoEProjector',
    'ChoiceCounter',
    'FusedMLPProjector',
    'LinearProjector',
    'MLPProjector',
    'MixedEncoders',
    'MoEProjector',
    'WeightedLayers',
]
