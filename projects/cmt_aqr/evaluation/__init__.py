"""Metrics and test loops; importing the package registers them."""

from .conditions_loop import ConditionsLoop
from .frames_metric import FramesMetric
from .present_classes import PresentClassesMetric

__all__ = ['ConditionsLoop', 'FramesMetric', 'PresentClassesMetric']
