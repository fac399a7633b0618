"""Detection in single frames and scenes, without a dataset or annotations."""

from .detection import Detection, detect
from .frames import Frame, load_frames
from .models import ShippedModel, init_detector, shipped_models

__all__ = [
    'Detection',
    'Frame',
    'ShippedModel',
    'detect',
    'init_detector',
    'load_frames',
    'shipped_models',
]
