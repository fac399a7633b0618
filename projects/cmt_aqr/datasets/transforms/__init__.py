"""Transforms of cameras and LiDAR together.

They keep the following true of a sample, whatever they do to the scene or to the images:

- ``lidar2img`` (V, 4, 4) float64 takes a LiDAR point (x, y, z, 1) in metres, in the current frame
  of ``results['points']``, to (u * d, v * d, d, 1): u right and v down in pixels of the current
  ``results['img']``, d the depth in metres;
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
