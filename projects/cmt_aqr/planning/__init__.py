"""Open-loop planning on a frozen detector: the ego vehicle's next waypoints."""

from .action_query_head import ActionQueryHead
from .ego_status_head import EgoStatusHead
from .pack import PackEgoFuture
from .plan_metric import PlanMetric

__all__ = ['ActionQueryHead', 'EgoStatusHead', 'PackEgoFuture', 'PlanMetric']
