"""The Adaptive Query Router, except for what builds it (:mod:`.router`); needs torch alone."""

from .health import token_health
from .layout import TokenLayout, Tokens
from .reliability import reliability_loss
from .weight_generator import AQRWeightGenerator
from .weight_maps import WeightMaps, render_weights
from .windows import Windows, bev_windows, camera_windows

__all__ = [
    'AQRWeightGenerator',
    'TokenLayout',
    'Tokens',
    'WeightMaps',
    'Windows',
    'bev_windows',
    'camera_windows',
    'reliability_loss',
    'render_weights',
    'token_health',
]
