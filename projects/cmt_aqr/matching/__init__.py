"""Box coding, matching of queries with boxes, and losses."""

from .box_coder import BoxCoder
from .costs import BBox3DL1Cost
from .criterion import SetCriterion
from .ground_truth import GroundTruth
from .matcher import HungarianMatcher

__all__ = ['BBox3DL1Cost', 'BoxCoder', 'GroundTruth', 'HungarianMatcher', 'SetCriterion']
