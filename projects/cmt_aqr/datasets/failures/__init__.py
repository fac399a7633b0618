"""Sensor failures, drawn at the head of a pipeline and applied by the project's loaders."""

from .base import DrawnFailure, SensorFailure, random_stream
from .camera import CameraDrop, Darkness, MotionBlur, Occlusion, RandomCameraLoss
from .draws import DrawIndex, RandomFailure
from .fog import Fog
from .ghost_points import GhostPoints
from .health import PackHealth, health_maps
from .lidar import BeamReduction, LidarDrop, LimitedFieldOfView, ObjectFailure, PointsDrop
from .misalignment import KnockedCamera, Misalignment
from .stale import FrozenCamera, StaleFrame

__all__ = [
    'BeamReduction',
    'CameraDrop',
    'Darkness',
    'DrawIndex',
    'DrawnFailure',
    'Fog',
    'FrozenCamera',
    'GhostPoints',
    'KnockedCamera',
    'LidarDrop',
    'LimitedFieldOfView',
    'Misalignment',
    'MotionBlur',
    'ObjectFailure',
    'Occlusion',
    'PackHealth',
    'PointsDrop',
    'RandomCameraLoss',
    'RandomFailure',
    'SensorFailure',
    'StaleFrame',
    'health_maps',
    'random_stream',
]
