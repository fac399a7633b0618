"""Transforms for cameras and LiDAR together.

All of them keep three facts of a sample true, whatever they do to the scene or to the images:

- ``lidar2img`` (V, 4, 4) float64 takes a LiDAR point (x, y, z, 1) in metres, in the frame of
  ``results['points']`` as it then is, to (u * d, v * d, d, 1): u right and v down in pixels of
  ``results['img']`` as it then is, d the depth in metres;
- ``lidar2cam`` and ``cam2img`` (V, 4, 4) float64 are its two factors;
- pixel i covers the coordinates [i, i + 1), so the image spans [0, W) x [0, H) and resizing scales
  coordinates without an offset.
"""

from .calibration import ComputeLidar2Img
from .image_augmentation import ResizeCropFlipImage
from .loading import LoadMultiViewImages
from .loading_points import LoadPointsOfKeyframe, LoadPointsOfSweeps
from .scene_augmentation import GlobalRotScaleTransAll, RandomFlip3DAll

__all__ = [
    'ComputeLidar2Img',
    'GlobalRotScaleTransAll',
    'LoadMultiViewImages',
    'LoadPointsOfKeyframe',
    'LoadPointsOfSweeps',
    'RandomFlip3DAll',
    'ResizeCropFlipImage',
]
