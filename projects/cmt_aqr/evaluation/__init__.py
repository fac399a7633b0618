"""Metrics and test loops; importing the package registers them."""

from .conditions_loop import ConditionsLoop
from .detection_metric import DetectionMetric
from .frames_metric import FramesMetric

__all__ = ['ConditionsLoop', 'DetectionMetric', 'FramesMetric']
