"""Sensor failures: drawn at the head of a pipeline, applied by the project's loaders."""

from .base import DrawnFailure, SensorFailure, random_stream
from .draws import DrawIndex, RandomFailure
from .health import PackHealth
from .lidar import BeamReduction, LidarDrop, LimitedFieldOfView, ObjectFailure, PointsDrop

__all__ = [
    'BeamReduction',
    'DrawIndex',
    'DrawnFailure',
    'LidarDrop',
    'LimitedFieldOfView',
    'ObjectFailure',
    'PackHealth',
    'PointsDrop',
    'RandomFailure',
    'SensorFailure',
    'random_stream',
]
