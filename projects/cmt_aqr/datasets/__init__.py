"""Datasets and transforms; importing the package registers them."""

from . import failures, object_sampling, transforms
from .skip_unreadable import SkipUnreadable

__all__ = ['SkipUnreadable', 'failures', 'object_sampling', 'transforms']
