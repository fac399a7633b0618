"""Health of the LiDAR, of each camera and of each BEV cell, from frozen features and statistics.

Shapes: B batch, V cameras, C channels, h and w of a BEV or image map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..aqr.health import fit_map
from ..cameras import Cameras
from ..feature_cache.frozen_features import BRANCHES
from ..geometry import VoxelGrid, bev_grid, project
from ..transfer import to_device
from .statistics import PROJECTED_CHANNELS, PixelStatistics, RangeImage, project_returns

# A sensor is sound if every cell of its health map is: a hair less than 1, for rounding.
_SOUND = 0.999
_RAW = {'lidar': 'points', 'camera': 'imgs'}


class Health(NamedTuple):
    """Health of the sensors of a batch, 0 to 1, or the logits of it."""

    lidar: Tensor
    """(B,), probability that nothing is wrong with the LiDAR"""
    cameras: Tensor
    """(B, V), probability that nothing is wrong with each camera"""
    bev: Tensor
    """(B, h, w), healthy share of the LiDAR in each BEV cell, rows along y, columns along x"""
    patches: Tensor
    """(B, V, h, w), healthy share of each image token"""


@MODELS.register_module()
class HealthMonitor(BaseModule):
    """Small head beside a frozen CMT that reports the health of its sensors.

    Three branches of a few convolutions each:

    - the range image of the cloud shows lost beams, sectors, points and objects;
    - for each camera, statistics of its pixels, its frozen features, and the LiDAR returns
      projected into it, whose edges must agree with those of the image: misaligned and stale
      cameras are known by nothing else;
    - for each BEV cell, the frozen BEV features, those of the range image in its direction, and
      those of the cameras that see it.

    It only reads features, so the boxes of the detector are the same with and without it. Where all
    cameras disagree with the LiDAR, the cameras are called unwell, although the LiDAR may be: one
    comparison cannot tell which of two sensors is wrong.

    Args:
        point_cloud_range: metres; the detector gives it.
        voxel_grid: of the voxels; the detector gives it.
        bev_channels: channels of the BEV map; the detector gives them.
        image_channels: channels of the image maps; the detector gives them.
        channels: C, width of all branches.
        range_image: options of :class:`.statistics.RangeImage`.
        image_cell: pixels along each side of a cell of the camera statistics; about half an image
            token.
        heights: heights in metres in the LiDAR frame at which a BEV cell looks up the range image;
            the ground and the middle of objects.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        *,
        point_cloud_range: Sequence[float],
        voxel_grid: VoxelGrid,
        bev_channels: int,
        image_channels: int,
        channels: int = 16,
        range_image: Mapping | None = None,
        image_cell: int = 4,
        heights: Sequence[float] = (-1.8, -0.8),
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.point_cloud_range = tuple(point_cloud_range)
        self.voxel_grid = voxel_grid
        self.heights = tuple(heights)
        self.statistics = nn.ModuleDict(
            {
                'lidar': RangeImage(**(range_image or {})),
                'camera': PixelStatistics(cell=image_cell),
            }
        )
        wide = 2 * channels
        self.range_norm = nn.BatchNorm2d(RangeImage.CHANNELS, affine=False)
        # Circular because azimuths are; that rows wrap as well matters little with so many of them.
        self.range_branch = nn.Sequential(
            _conv(RangeImage.CHANNELS + 1, channels, stride=(1, 2), padding_mode='circular'),
            _conv(channels, wide, stride=2, padding_mode='circular'),
            _conv(wide, channels, padding_mode='circular'),
        )
        pixels = PixelStatistics.CHANNELS + PROJECTED_CHANNELS
        self.pixel_norm = nn.BatchNorm2d(pixels, affine=False)
        self.pixel_branch = nn.Sequential(_conv(pixels, channels), _conv(channels, wide, stride=2))
        self.image_projection = _conv(image_channels, channels, kernel=1)
        self.camera_branch = nn.Sequential(_conv(wide + channels, wide), _conv(wide, channels))
        self.bev_projection = _conv(bev_channels, channels, kernel=1)
        self.bev_branch = nn.Sequential(
            _conv((2 + len(self.heights)) * channels + 1, channels, kernel=1),
            _conv(channels, channels),
        )
        self.to_patch, self.to_cell = nn.Conv2d(channels, 1, 1), nn.Conv2d(channels, 1, 1)
        self.to_camera, self.to_lidar = _pooled_head(2 * channels), _pooled_head(4 * channels)

    def statistics_of(self, branch: str, inputs: Mapping) -> Tensor:
        """Statistics of one branch of a preprocessed batch.

        Args:
            branch: 'lidar' or 'camera'.
            inputs: ``points`` or ``imgs``, see the preprocessor; or ``features`` of a cache, in
                which the statistics are the last map of the branch.
        """
        for module in BRANCHES[branch]:
            if module in inputs.get('features', {}):
                return inputs['features'][module][-1]
        return self.statistics[branch](inputs[_RAW[branch]])

    def forward(self, bev: Tensor, images: Tensor, inputs: Mapping, cameras: Cameras) -> Health:
        """Logits of the health of a batch.

        Args:
            bev: (B, bev_channels, h, w), frozen.
            images: (B, V, image_channels, h, w), frozen.
            inputs: of the detector, see :meth:`statistics_of`.
            cameras: of the batch.
        """
        range_image = self.statistics_of('lidar', inputs)
        ranges = self._range_features(range_image)
        pixels = self.statistics_of('camera', inputs)
        pixels = torch.cat([pixels, self._returns(range_image, pixels, cameras)], dim=2)
        views = self._camera_features(images, pixels)
        cells = self._bev_features(bev, ranges, views, cameras)
        batch = views.shape[:2]
        views = views.flatten(0, 1)
        return Health(
            lidar=self.to_lidar(torch.cat([_pool(ranges), _pool(cells)], dim=1))[:, 0],
            cameras=self.to_camera(_pool(views))[:, 0].unflatten(0, batch),
            bev=self.to_cell(cells)[:, 0],
            patches=self.to_patch(views)[:, 0].unflatten(0, batch),
        )

    def _range_features(self, image: Tensor) -> Tensor:
        """(B, 3, R, A) -> (B, C, R / 2, A / 4)."""
        row = torch.linspace(-1, 1, image.shape[2], device=image.device)[:, None]
        row = row.expand(len(image), 1, *image.shape[2:])
        return self.range_branch(torch.cat([self.range_norm(image), row], dim=1))

    def _returns(self, range_image: Tensor, like: Tensor, cameras: Cameras) -> Tensor:
        """(B, V, 4, h, w): LiDAR returns within each cell of (B, V, 5, h, w) pixel statistics."""
        points = self.statistics['lidar'].points(range_image)
        return project_returns(points, range_image[:, 2].flatten(1), cameras, like.shape[-2:])

    def _camera_features(self, images: Tensor, pixels: Tensor) -> Tensor:
        """Frozen maps (B, V, image_channels, h, w) and finer statistics -> (B, V, C, h, w)."""
        fine = self.pixel_branch(self.pixel_norm(pixels.flatten(0, 1)))
        tokens = self.image_projection(images.flatten(0, 1))
        fine = F.adaptive_max_pool2d(fine, tokens.shape[-2:])
        merged = self.camera_branch(torch.cat([fine, tokens], dim=1))
        return merged.unflatten(0, images.shape[:2])

    def _bev_features(self, bev: Tensor, ranges: Tensor, views: Tensor, cameras: Cameras) -> Tensor:
        """(B, C, h, w): of each BEV cell."""
        size = bev.shape[-2:]
        ground = self._cell_centres(size, bev)
        places = [F.pad(ground, (0, 1), value=height) for height in self.heights]
        directions = torch.stack([self.statistics['lidar'].grid(place) for place in places])
        directions = directions.expand(len(bev), -1, -1, -1)
        seen = F.grid_sample(ranges, directions, padding_mode='border', align_corners=False)
        seen = seen.transpose(1, 2).flatten(1, 2).unflatten(2, size)
        distance = ground.norm(dim=-1).view(1, 1, *size) / self.point_cloud_range[3]
        parts = [
            self.bev_projection(bev),
            seen,
            _look_up_cameras(views, places[-1], cameras).unflatten(2, size),
            distance.expand(len(bev), -1, -1, -1),
        ]
        return self.bev_branch(torch.cat(parts, dim=1))

    def _cell_centres(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """(h * w, 2): x and y in metres."""
        cell = self.voxel_grid.cell_size(size)
        extent = to_device([size[1] * cell[0], size[0] * cell[1]], like)
        return bev_grid(*size, like=like) * extent + to_device(self.point_cloud_range[:2], like)

    def loss(
        self, logits: Health, health: Mapping[str, Tensor] | None, camera_mask: Tensor
    ) -> dict[str, Tensor]:
        """Binary cross-entropies of all four outputs.

        Args:
            logits: of :meth:`forward`.
            health: of the batch, from
                :class:`~projects.cmt_aqr.datasets.failures.PackHealth`.
            camera_mask: (B, V), bool: cameras that a sample has.

        Raises:
            ValueError: the batch has no health.
        """
        truth = true_health(health, logits)
        weight = camera_mask.float()
        shares = {
            'lidar': _entropy(logits.lidar, truth.lidar).mean(),
            'cameras': _mean(_entropy(logits.cameras, truth.cameras), weight),
            'bev': _entropy(logits.bev, truth.bev).mean(),
            'patches': _mean(_entropy(logits.patches, truth.patches).mean(dim=(2, 3)), weight),
        }
        return {f'loss_health_{name}': share for name, share in shares.items()}


def true_health(health: Mapping[str, Tensor] | None, like: Health) -> Health:
    """Health that the drawn failures left, in the shape of ``like``.

    Raises:
        ValueError: the batch has none.
    """
    if health is None:
        raise ValueError(
            'the batch has no health, from which the HealthMonitor learns: pack the samples with '
            'PackHealth'
        )
    bev = fit_map(health['lidar'], like.bev.shape[-2:])
    patches = fit_map(health['camera'], like.patches.shape[-2:])
    sound = [(x.amin(dim=(-2, -1)) > _SOUND).float() for x in (bev, patches)]
    return Health(*sound, bev, patches)


def attach_health(
    samples: Sequence[Det3DDataSample], logits: Health, health: Mapping[str, Tensor] | None
) -> None:
    """Gives each sample ``pred_health``, and ``gt_health`` if the batch has health maps.

    Both have the fields of :class:`Health` for one sample, between 0 and 1, with as many cameras as
    the sample has.
    """
    found = {'pred_health': Health(*(x.sigmoid() for x in logits))}
    if health is not None:
        found['gt_health'] = true_health(health, logits)
    for index, sample in enumerate(samples):
        count = len(sample.metainfo['lidar2img'])
        for name, (lidar, cameras, bev, patches) in found.items():
            one = Health(lidar[index], cameras[index, :count], bev[index], patches[index, :count])
            sample.set_field(BaseDataElement(**one._asdict()), name, dtype=BaseDataElement)


def _look_up_cameras(views: Tensor, points: Tensor, cameras: Cameras) -> Tensor:
    """Mean over the cameras that see a point of their features there; zero where none does.

    (B, V, C, h, w) and (N, 3) -> (B, C, N).
    """
    batch, count = views.shape[:2]
    projection = project(points.expand(batch, -1, -1), cameras.lidar2img, cameras.image_shape)
    size = to_device(cameras.image_shape[::-1], views)
    grid = projection.pixels[..., :2] / size * 2 - 1
    grid = grid.clamp(-2, 2).flatten(0, 1)[:, None]  # pixels of points beside a camera are huge
    found = F.grid_sample(views.flatten(0, 1), grid, align_corners=False)[:, :, 0]
    visible = (projection.visible & cameras.camera_mask[..., None]).to(views)[:, :, None]
    found = found.unflatten(0, (batch, count)) * visible
    return found.sum(dim=1) / visible.sum(dim=1).clamp(min=1)


def _conv(inputs: int, outputs: int, kernel: int = 3, **options) -> ConvModule:
    """Convolution that keeps the size at stride 1, norm and ReLU."""
    norm = dict(type='BN2d')
    return ConvModule(inputs, outputs, kernel, padding=kernel // 2, norm_cfg=norm, **options)


def _pooled_head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, 1))


def _pool(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 2C): means and maxima."""
    return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, truth, reduction='none')


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
