"""Data preprocessor: from packed samples to the batch that the model reads.

Shapes: B samples, V cameras (the most in the batch), H and W of the padded images, N voxels of at
most P points with C values each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from mmdet3d.models import Det3DDataPreprocessor
from mmdet3d.models.data_preprocessors.utils import multiview_img_stack_batch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional

from .samples import sample_name
from .voxelize import Voxelizer, cloud_of_point


@MODELS.register_module()
class CmtDataPreprocessor(Det3DDataPreprocessor):
    """Data preprocessor for point clouds and images that may be missing, empty or damaged.

    Beyond mmdet3d's normalisation and transfer to the device:

    - :class:`~projects.cmt_aqr.voxelize.Voxelizer` makes the voxels, on any device;
    - points with a value that is not finite are dropped, with one warning per run;
    - samples may have different numbers of cameras, or none: missing views are zero, which is the
      mean image, and a sample's number of views is the length of its ``lidar2img``;
    - features from a :mod:`~projects.cmt_aqr.feature_cache` are stacked, in float32.

    Args:
        voxel_layer: arguments of `Voxelizer`, named as in mmdet3d (``voxel_size``,
            ``point_cloud_range``, ``max_num_points``, ``max_voxels``); None makes no voxels. The
            detector adds ``sparse_shape``, the grid of its sparse encoder.
        mean: mean of each channel after `bgr_to_rgb`; None does not normalise.
        std: standard deviation of each channel; None if `mean` is.
        bgr_to_rgb: reverse the channels before normalising.
        pad_size_divisor: images are padded at the bottom and right to multiples of this.
        non_blocking: copy to the device without waiting.
    """

    def __init__(
        self,
        *,
        voxel_layer: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        pad_size_divisor: int = 32,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(
            mean=mean,
            std=std,
            bgr_to_rgb=bgr_to_rgb,
            pad_size_divisor=pad_size_divisor,
            non_blocking=non_blocking,
        )
        self.voxel_layer = None if voxel_layer is None else Voxelizer(**voxel_layer)
        self._warned = False

    def simple_process(self, data: dict, training: bool = False) -> dict:
        """Turns a collated batch into the model's inputs.

        Args:
            data: ``inputs``, any of ``points``, a list of B (n, C); ``img``, a list of B
                (V_b, 3, h, w) or None; ``features``, which has the maps of each cached module, each
                map a list of B; and, from
                :class:`~projects.cmt_aqr.datasets.failures.PackHealth`, ``health`` with ``lidar``,
                a list of B (h, w), and ``camera``, a list of B (V_b, h, w); from
                :class:`~projects.cmt_aqr.planning.PackEgoFuture`, ``ego``. ``data_samples``, a list
                of B or None.
            training: not used; training-time augmentation is done in the pipeline.

        Returns:
            ``inputs`` with ``points`` (list of B), ``voxels`` (dict of ``voxels`` (N, P, C),
            ``num_points`` (N,), ``coors`` (N, 4) as sample, z, y, x), ``imgs`` (B, V, 3, H, W),
            ``features`` (lists of (B, ...) float32) and ``health`` with ``lidar`` (B, h, w) and
            ``camera`` (B, V, h, w), and ``ego``, each only if there is such an input; and
            ``data_samples``, each with the meta ``pad_shape`` (H, W).

        Raises:
            ValueError: for images that are not (V, 3, h, w), or not one per ``lidar2img``, and for
                cached features of different sizes in one batch.
        """
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        batch = {}
        if 'health' in inputs:
            batch['health'] = _batch_health(inputs['health'])
        if 'ego' in inputs:
            batch['ego'] = {name: torch.stack([*values]) for name, values in inputs['ego'].items()}
        if inputs.get('points'):
            batch['points'] = self._finite_points(inputs['points'], samples)
            if self.voxel_layer is not None:
                batch['voxels'] = self.voxel_layer(batch['points'])
        images = self._batch_images(inputs.get('img') or (), samples)
        if images is not None:
            batch['imgs'] = images
            shape = tuple(images.shape[-2:])
            for sample in samples or ():
                sample.set_metainfo(dict(pad_shape=shape, batch_input_shape=shape))
        if 'features' in inputs:
            batch['features'] = {
                module: [_stack_features(samples_maps) for samples_maps in maps]
                for module, maps in inputs['features'].items()
            }
        return {'inputs': batch, 'data_samples': samples}

    def _finite_points(
        self, clouds: Sequence[Tensor], samples: Sequence[Det3DDataSample] | None
    ) -> list[Tensor]:
        points = torch.cat([*clouds])
        finite = points.isfinite().all(dim=1)
        cloud, start = cloud_of_point(clouds)
        kept = torch.zeros_like(start).index_add_(0, cloud, finite.long())
        kept = kept.tolist()  # the only host read if all points are finite
        dropped = [len(cloud) - count for cloud, count in zip(clouds, kept, strict=True)]
        if not any(dropped):
            return [*clouds]
        first = next(index for index, count in enumerate(dropped) if count)
        self._warn_once(dropped[first], sample_name(samples[first] if samples else {}))
        return [*points[finite].split(kept)]

    def _warn_once(self, count: int, sample: str) -> None:
        if not self._warned:
            self._warned = True
            message = f'sample {sample}: dropped {count} points with NaN or infinite values; '
            message += 'further ones are dropped without a warning'
            print_log(message, logger='current', level=logging.WARNING)

    def _batch_images(
        self, views: Sequence[Tensor | None], samples: Sequence[Det3DDataSample] | None
    ) -> Tensor | None:
        """B times (V_b, 3, h, w) or None -> (B, V, 3, H, W) normalised, or None without views."""
        for i, images in enumerate(views):
            _check_views(images, samples, i)
        present = [images for images in views if images is not None and len(images)]
        if not present:
            return None
        most = max(len(images) for images in present)
        blank = present[0].new_zeros((0, *present[0].shape[1:]))
        batch = []
        for images in views:
            images = self._normalise(blank if images is None or not len(images) else images)
            batch.append(functional.pad(images, (0, 0) * 3 + (0, most - len(images))))
        return multiview_img_stack_batch(batch, self.pad_size_divisor, self.pad_value)

    def _normalise(self, images: Tensor) -> Tensor:
        if self._channel_conversion:
            images = images.flip(1)
        images = images.float()
        return (images - self.mean) / self.std if self._enable_normalize else images


def _batch_health(health: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Maps of B samples -> ``lidar`` (B, h, w), ``camera`` (B, V, h, w), padded with 1."""
    most = [max(sizes) for sizes in zip(*(maps.shape for maps in health['camera']), strict=True)]
    camera = []
    for maps in health['camera']:
        views, rows, columns = (a - b for a, b in zip(most, maps.shape, strict=True))
        camera.append(functional.pad(maps, (0, columns, 0, rows, 0, views), value=1.0))
    return {'lidar': torch.stack([*health['lidar']]), 'camera': torch.stack(camera)}


def _stack_features(maps: Sequence[Tensor]) -> Tensor:
    """One feature map of each sample -> (B, ...) float32; missing views are zero.

    Raises:
        ValueError: the maps differ in another dimension than their first.
    """
    shapes = [tuple(m.shape) for m in maps]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(
            f'cached features of one batch have different shapes: {shapes}; the pipeline must '
            'resize all images to one size, as ResizeCropFlipImage does'
        )
    most = max(map(len, maps))
    padding = (0, 0) * (maps[0].dim() - 1)
    return torch.stack([functional.pad(m, (*padding, 0, most - len(m))) for m in maps]).float()


def _check_views(
    images: Tensor | None, samples: Sequence[Det3DDataSample] | None, index: int
) -> None:
    count = 0 if images is None else len(images)
    name = sample_name(samples[index] if samples else {})
    if count and (images.dim() != 4 or images.shape[1] != 3):
        raise ValueError(f'sample {name}: images of shape {tuple(images.shape)}, not (V, 3, h, w)')
    lidar2img = samples[index].metainfo.get('lidar2img') if samples else None
    if lidar2img is not None and count and len(lidar2img) != count:
        raise ValueError(f'sample {name}: {count} images but {len(lidar2img)} lidar2img matrices')
