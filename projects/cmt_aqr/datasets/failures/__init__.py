"""Sensor failures: drawn at the head of a pipeline, applied by the project's loaders."""

from .base import DrawnFailure, SensorFailure, random_stream

__all__ = ['DrawnFailure', 'SensorFailure', 'random_stream']
