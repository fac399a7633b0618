"""Data side of the plugin; importing it registers the transforms."""

from . import transforms

__all__ = ['transforms']
