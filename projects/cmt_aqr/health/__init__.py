"""Health report: the condition of each sensor, frame by frame, beside any frozen CMT."""

from .metric import HealthMetric
from .monitor import Health, HealthMonitor, attach_health, true_health

__all__ = ['Health', 'HealthMetric', 'HealthMonitor', 'attach_health', 'true_health']
