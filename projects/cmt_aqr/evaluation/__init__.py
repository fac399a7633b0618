"""Scoring; importing it registers the metrics."""

from .present_classes import PresentClassesMetric

__all__ = ['PresentClassesMetric']
