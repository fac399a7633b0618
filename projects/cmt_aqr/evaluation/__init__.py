"""Scoring; importing it registers the metrics and the loop."""

from .conditions_loop import ConditionsLoop
from .frames_metric import FramesMetric
from .present_classes import PresentClassesMetric

__all__ = ['ConditionsLoop', 'FramesMetric', 'PresentClassesMetric']
