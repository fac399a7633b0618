"""Health report: the condition of each sensor, frame by frame, beside any frozen CMT."""

from .metric import HealthMetric
from .monitor import Health, HealthMonitor, attach_health, true_health
from .statistics import RangeImage

__all__ = ['Health', 'HealthMetric', 'HealthMonitor', 'RangeImage', 'attach_health', 'true_health']
