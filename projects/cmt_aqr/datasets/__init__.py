"""Data side of the plugin; importing it registers the transforms and the wrapper of datasets."""

from . import failures, transforms
from .skip_unreadable import SkipUnreadable

__all__ = ['SkipUnreadable', 'failures', 'transforms']
