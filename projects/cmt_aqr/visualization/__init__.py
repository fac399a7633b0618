"""Pictures that let a person check data and detections at a glance."""

from .drawing import save
from .frame import load_predictions, render_frame

__all__ = ['load_predictions', 'render_frame', 'save']
