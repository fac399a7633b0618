"""From samples as the pipeline packs them to the batch the model reads.

Shapes: B samples, V cameras (the most in the batch), H and W of the padded images, N voxels of at
most P points with C values each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmdet3d.models import Det3DDataPreprocessor
from mmdet3d.models.data_preprocessors.utils import multiview_img_stack_batch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional

from .feature_cache import Lookup, lookups_of
from .samples import sample_name
from .voxelize import Voxelizer, cloud_of_point


@MODELS.register_module()
class CmtDataPreprocessor(Det3DDataPreprocessor):
    """mmdet3d's preprocessor for clouds and views that may be missing, empty or damaged.

    Normalisation and the move to the device are mmdet3d's. Added: voxels are made by
    :class:`~projects.cmt_aqr.voxelize.Voxelizer`, on any device; points with a value that is not
    finite are dropped (one warning a run, with the sample); samples may have different numbers of
    cameras, or none: the views up to the largest number are filled with zeros, which is the mean
    image, and a sample's own number is the length of its ``lidar2img``. Samples whose features are
    cached have no input; the batch then holds that of the others.

    Args:
        voxel_layer: arguments of `Voxelizer`, named as in mmdet3d (``voxel_size``,
            ``point_cloud_range``, ``max_num_points``, ``max_voxels``); None gives no voxels. The
            detector adds ``sparse_shape``, the grid of its sparse encoder.
        mean: per channel, in the order of the normalised image; None to leave images as they are.
        std: as `mean`.
        bgr_to_rgb: swap the channels before normalising.
        pad_size_divisor: images are padded below and to the right to multiples of this.
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
        """A collated batch -> the model's inputs.

        Args:
            data: ``inputs`` with ``points``, a list of B (n, C), and ``img``, a list of B
                (V_b, 3, h, w) or None; either may be absent. From
                :class:`~projects.cmt_aqr.datasets.failures.PackHealth` also ``health`` with
                ``lidar``, a list of B (h, w), and ``camera``, a list of B (V_b, h, w).
                ``data_samples``, a list of B or None.
            training: not used; training-time augmentation is done in the pipeline.

        Returns:
            ``inputs`` with ``points`` (list of B), ``voxels`` (dict of ``voxels`` (N, P, C),
            ``num_points`` (N,), ``coors`` (N, 4) as sample, z, y, x), ``imgs`` (B, V, 3, H, W),
            absent if no sample has a camera, and ``health``, if it was packed, with ``lidar``
            (B, h, w) and ``camera`` (B, V, h, w); and ``data_samples``, each with the meta
            ``pad_shape`` (H, W). With a feature cache also ``lookups``, by branch for each sample;
            B of the other inputs is then the number of samples that are not cached, and what has
            none is absent.

        Raises:
            ValueError: for images that are not (V, 3, h, w), or not one per ``lidar2img``; with a
                feature cache also for images of different sizes in one batch.
        """
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        lookups = lookups_of(samples)
        batch = {'lookups': lookups} if lookups else {}
        if 'health' in inputs:
            batch['health'] = _batch_health(inputs['health'])
        clouds, of = _to_compute(inputs.get('points'), samples, lookups.get('lidar'))
        if clouds:
            batch['points'] = self._finite_points(clouds, of)
            if self.voxel_layer is not None:
                batch['voxels'] = self.voxel_layer(batch['points'])
        views, of = _to_compute(inputs.get('img'), samples, lookups.get('camera'))
        images = self._batch_images(views, of)
        if images is not None:
            batch['imgs'] = images
        if images is not None or 'camera' in lookups:
            shape = self._cached_shape(samples) if 'camera' in lookups else images.shape[-2:]
            for sample in samples or ():
                sample.set_metainfo(dict(pad_shape=tuple(shape), batch_input_shape=tuple(shape)))
        return {'inputs': batch, 'data_samples': samples}

    def _finite_points(
        self, clouds: Sequence[Tensor], samples: Sequence[Det3DDataSample] | None
    ) -> list[Tensor]:
        points = torch.cat([*clouds])
        finite = points.isfinite().all(dim=1)
        cloud, start = cloud_of_point(clouds)
        kept = torch.zeros_like(start).index_add_(0, cloud, finite.long())
        kept = kept.tolist()  # the one host read of a batch that is whole
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
            print_log(message + 'later ones are dropped in silence', logger='current', level=30)

    def _batch_images(
        self, views: Sequence[Tensor | None], samples: Sequence[Det3DDataSample] | None
    ) -> Tensor | None:
        """List of B (V_b, 3, h, w) or None -> (B, V, 3, H, W) normalised, or None without views."""
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

    def _cached_shape(self, samples: Sequence[Det3DDataSample]) -> tuple[int, int]:
        """Size of the padded images (H, W), whichever of them are there."""
        divisor = self.pad_size_divisor
        shapes = {
            tuple(-(-side // divisor) * divisor for side in sample.metainfo['pad_shape'][:2])
            for sample in samples
        }
        if len(shapes) > 1:
            raise ValueError(
                f'images of one batch would be padded to {sorted(shapes)}, and features of one '
                'would depend on the others: a feature cache needs one size, as '
                'ResizeCropFlipImage gives'
            )
        return shapes.pop()

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


def _to_compute(
    inputs: Sequence | None,
    samples: Sequence[Det3DDataSample] | None,
    lookups: Sequence[Lookup] | None,
) -> tuple[Sequence, Sequence[Det3DDataSample] | None]:
    """The inputs of the samples that are not cached, and these samples."""
    if inputs is None or lookups is None:
        return inputs or (), samples
    missing = [index for index, lookup in enumerate(lookups) if not lookup.hit]
    return [inputs[index] for index in missing], [samples[index] for index in missing]


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
