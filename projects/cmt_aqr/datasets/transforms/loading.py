"""Loader of any number of camera images, with errors that name the file and the sample."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get
from mmengine.logging import print_log
from PIL import Image

from ...samples import sample_name
from ..failures.base import DrawnFailure
from ..reading import DamagedFileError, MissingFileError, SampleError, reading

# Decoders of a JPEG at a part of its size, by the divisor.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Loads the images of one sample and applies its ``failures`` to each.

    The cameras and their order are those of the sample; their number and sizes are free. The keys
    are those of mmdet3d's `LoadMultiViewImageFromFiles`, with three differences: an error for an
    image that is missing or cannot be decoded names its file, camera and sample; such an image can
    be left out (``missing='skip'``), which leaves the sample with one camera less; and images are
    not stacked into one array and split again, which costs more than decoding them.

    Args:
        missing: 'error', or 'skip' to continue with the other cameras and a warning.
        final_dim: (height, width) of `ResizeCropFlipImage`, if a JPEG may be decoded at a half, a
            quarter or an eighth of its size as long as it fills this size without a zoom. That
            takes half the time; on nuScenes' images at 800 x 320, pixels of the augmented images
            differ by 0.8 of 255 grey levels on average. Images that a failure damages are decoded
            whole. By default all are.
        backend_args: arguments of mmengine's file backend.

    Raises:
        ValueError: ``missing`` is another word.
        MissingFileError: an image is missing, or no camera is left.
        DamagedFileError: a file is not an image.
    """

    def __init__(
        self,
        *,
        missing: str = 'error',
        final_dim: Sequence[int] | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if missing not in ('error', 'skip'):
            raise ValueError(f"missing={missing!r} is neither 'error' nor 'skip'")
        self.missing = missing
        self.final_dim = final_dim
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (list of (H, W, 3) uint8), its calibration, and names and sizes of images.

        ``camera_names``, ``loaded_shapes``, (height, width), and ``reductions``, the divisors of
        the sizes, are in the order of ``img``. ``cam2img`` is that of the image as decoded.
        """
        images, cameras, names, reductions = [], [], [], []
        for name, camera in results['images'].items():
            try:
                image, reduction = self._read(results, camera, name)
            except SampleError as error:
                if self.missing == 'error':
                    raise
                print_log(f'camera left out: {error}', logger='current', level=30)
                continue
            for failure in results.get('failures', ()):
                image = failure.damage_image(image, name)
            images.append(image)
            cameras.append(camera)
            names.append(name)
            reductions.append(reduction)
        if not images:
            raise MissingFileError(
                f'sample {sample_name(results)} has no camera image left of '
                f'{list(results["images"])}; take the loader out of the pipeline of a model '
                'without cameras'
            )
        shape = images[0].shape[:2]
        results.update(
            img=images,
            camera_names=names,
            loaded_shapes=[image.shape[:2] for image in images],
            reductions=reductions,
            filename=[camera['img_path'] for camera in cameras],
            cam2img=[
                _reduced(camera['cam2img'], reduction)
                for camera, reduction in zip(cameras, reductions, strict=True)
            ],
            lidar2cam=[copy.deepcopy(camera['lidar2cam']) for camera in cameras],
            ori_cam2img=[copy.deepcopy(camera['cam2img']) for camera in cameras],
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            scale_factor=1.0,
            num_views=len(images),
        )
        return results

    def _read(self, results: dict, camera: dict, name: str) -> tuple[np.ndarray, int]:
        """Image of a camera, and the divisor of its size."""
        path = camera.get('img_path')
        if path is None:
            raise MissingFileError(f'sample {sample_name(results)}: camera {name} has no img_path')
        with reading(results, path, f'image of camera {name}'):
            content = get(path, backend_args=self.backend_args)
            whole = self.final_dim is None or any(map(_damages_images, results.get('failures', ())))
            reduction = 1 if whole else _largest_reduction(content, self.final_dim)
            image = mmcv.imfrombytes(content, _REDUCED.get(reduction, 'color')) if content else None
            if image is None:
                raise DamagedFileError('it is not an image')
        return image, reduction

    def __repr__(self) -> str:
        return f'{type(self).__name__}(missing={self.missing!r}, final_dim={self.final_dim})'


def _largest_reduction(content: bytes, final_dim: Sequence[int]) -> int:
    """The largest divisor of a JPEG's size with which it still fills (height, width)."""
    if not content.startswith(b'\xff\xd8'):  # not a JPEG
        return 1
    with Image.open(io.BytesIO(content)) as header:
        width, height = header.size
    fits = (r for r in _REDUCED if r <= min(height / final_dim[0], width / final_dim[1]))
    return max(fits, default=1)


def _reduced(cam2img: Sequence, reduction: int) -> Sequence:
    """The matrix for an image decoded at 1 / ``reduction`` of its size; a copy."""
    if reduction == 1:
        return copy.deepcopy(cam2img)
    matrix = np.array(cam2img, dtype=np.float64)
    matrix[:2] /= reduction
    return matrix.tolist()


def _damages_images(drawn: DrawnFailure) -> bool:
    return type(drawn).damage_image is not DrawnFailure.damage_image
