"""Data side of the plugin; importing it registers the transforms."""

from . import failures, transforms

__all__ = ['failures', 'transforms']
