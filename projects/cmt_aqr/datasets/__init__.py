"""Data side of the plugin; importing it registers the transforms and the wrapper of datasets."""

from . import failures, object_sampling, transforms
from .skip_unreadable import SkipUnreadable

__all__ = ['SkipUnreadable', 'failures', 'object_sampling', 'transforms']
