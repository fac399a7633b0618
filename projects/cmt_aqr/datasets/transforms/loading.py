"""Loader of any number of camera images, with errors that name the file and the sample."""

from __future__ import annotations

import copy

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get
from mmengine.logging import print_log

from ...samples import sample_name
from ..reading import DamagedFileError, MissingFileError, SampleError, reading


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
        backend_args: arguments of mmengine's file backend.

    Raises:
        ValueError: ``missing`` is another word.
        MissingFileError: an image is missing, or no camera is left.
        DamagedFileError: a file is not an image.
    """

    def __init__(self, *, missing: str = 'error', backend_args: dict | None = None) -> None:
        if missing not in ('error', 'skip'):
            raise ValueError(f"missing={missing!r} is neither 'error' nor 'skip'")
        self.missing = missing
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Adds ``img`` (list of (H, W, 3) uint8), its calibration, and names and sizes of images.

        ``camera_names`` and ``loaded_shapes``, (height, width), are in the order of ``img``.
        """
        images, cameras, names = [], [], []
        for name, camera in results['images'].items():
            try:
                image = self._read(results, camera, name)
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
            filename=[camera['img_path'] for camera in cameras],
            cam2img=[copy.deepcopy(camera['cam2img']) for camera in cameras],
            lidar2cam=[copy.deepcopy(camera['lidar2cam']) for camera in cameras],
            ori_cam2img=[copy.deepcopy(camera['cam2img']) for camera in cameras],
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            scale_factor=1.0,
            num_views=len(images),
        )
        return results

    def _read(self, results: dict, camera: dict, name: str) -> np.ndarray:
        path = camera.get('img_path')
        if path is None:
            raise MissingFileError(f'sample {sample_name(results)}: camera {name} has no img_path')
        with reading(results, path, f'image of camera {name}'):
            content = get(path, backend_args=self.backend_args)
            image = mmcv.imfrombytes(content) if content else None
            if image is None:
                raise DamagedFileError('it is not an image')
        return image

    def __repr__(self) -> str:
        return f'{type(self).__name__}(missing={self.missing!r})'
