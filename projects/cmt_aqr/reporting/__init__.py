"""Reports of finished runs as web pages."""

from .page import make_page
from .run import Run, find_run

__all__ = ['Run', 'find_run', 'make_page']
