"""The Adaptive Query Router: which sensor a query looks at; imports with torch alone."""

from .bias_generator import AttentionBiasGenerator
from .feature_scaling import FeatureScaling
from .health import token_health
from .layout import TokenLayout
from .reliability import ReliabilityLoss
from .weight_generator import AQRWeightGenerator
from .weight_maps import WeightMaps, render_weights
from .windows import Windows, bev_windows, camera_windows

__all__ = [
    'AQRWeightGenerator',
    'AttentionBiasGenerator',
    'FeatureScaling',
    'ReliabilityLoss',
    'TokenLayout',
    'WeightMaps',
    'Windows',
    'bev_windows',
    'camera_windows',
    'render_weights',
    'token_health',
]
