"""The detector: images and points -> features -> head.

Shapes: B batch, V cameras.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.models import Base3DDetector, SparseEncoder
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from .auxiliary_losses import take_auxiliary_losses
from .cameras import Cameras, batch_cameras
from .freezing import add_fast_path, build_freezable, renew_fast_paths
from .geometry import VoxelGrid
from .grid import fit_encoder, fit_head, range_of
from .head import MODALITIES, HeadOutput
from .health import Health, HealthMonitor, attach_health
from .precision import in_float32
from .required_hooks import RequiresHooks
from .samples import sample_names

# As `custom_fp16` of the released CMT has it.
FLOAT32_PARTS = ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_bbox_head')


@MODELS.register_module()
class CmtDetector(RequiresHooks, Base3DDetector):
    """Cross Modal Transformer (Yan et al., ICCV 2023) for LiDAR, cameras, or both.

    Without the config of a branch, the branch is not built. The config of every part may contain
    settings of :class:`~projects.cmt_aqr.freezing.FreezePolicy` in addition to its own arguments.
    Attribute names follow the released state dict.

    A batch may contain cached features of frozen backbones or necks in place of points or images,
    see :mod:`projects.cmt_aqr.feature_cache`; the remaining parts of the branch then run on them.

    Args:
        pts_bbox_head: config of the head.
        data_preprocessor: config of the preprocessor, which also makes the voxels, limited to the
            ``sparse_shape`` of `pts_middle_encoder`.
        img_backbone: config of the image backbone.
        img_neck: config of its neck, whose first output the head takes.
        pts_voxel_encoder: config of the voxel encoder.
        pts_middle_encoder: config of the sparse encoder. By default its ``sparse_shape`` has the
            voxels of the point cloud range, and one more along z, as in SECOND.
        pts_backbone: config of the BEV backbone.
        pts_neck: config of its neck, whose first output the head takes.
        grid_mask: config of an augmentation of the normalised images.
        health_monitor: config of a :class:`~projects.cmt_aqr.health.HealthMonitor`, which reports
            the health of the sensors with the boxes and changes nothing else. While all else is
            frozen, only the monitor has losses; a frozen monitor has none.
        fast_path: settings of a :class:`~projects.cmt_aqr.freezing.FastPath` for every part of the
            branches, used while the part is frozen; ``None`` disables fast paths.
        planner: config of a :class:`~projects.cmt_aqr.planning.plan_head.PlanHead`, which is then
            all that trains: everything else must be frozen.
        float32_parts: names of the parts above that compute in float32 under autocast; the others
            compute in half precision. By default, as in the training of the released CMT, image
            branch, BEV backbone, BEV neck and the head's cross-attention kernels use half
            precision. MMDetection3D's sparse encoders always compute in float32.
        crops_range: whether `pts_middle_encoder` may have a ``sparse_shape`` of its own, beyond
            which points are lost, as in the released model with 0.1 m voxels. By default it is that
            of the range and the voxel size.
        train_cfg: None, as MMDetection3D's ``init_model`` and inferencers set it.
        init_cfg: as in mmengine.

    Raises:
        ValueError: an incomplete branch, or one that the head does not use; an unknown name in
            ``float32_parts``; settings in ``train_cfg``; a part that cannot be frozen, or have a
            fast path, as configured; a range, voxel size, grid or limits of boxes that contradict
            each other; a LiDAR branch without a ``voxel_layer``; a monitor without both branches; a
            planner beside parts that train.
    """

    def __init__(
        self,
        *,
        pts_bbox_head: Mapping,
        data_preprocessor: Mapping | None = None,
        img_backbone: Mapping | None = None,
        img_neck: Mapping | None = None,
        pts_voxel_encoder: Mapping | None = None,
        pts_middle_encoder: Mapping | None = None,
        pts_backbone: Mapping | None = None,
        pts_neck: Mapping | None = None,
        grid_mask: Mapping | None = None,
        health_monitor: Mapping | None = None,
        fast_path: Mapping | None = None,
        planner: Mapping | None = None,
        float32_parts: Sequence[str] = FLOAT32_PARTS,
        crops_range: bool = False,
        train_cfg: None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        if train_cfg is not None:
            raise ValueError(
                f'train_cfg is {train_cfg!r}; it must be None: assigner and losses are settings of '
                'pts_bbox_head'
            )
        limits = range_of({'data_preprocessor': data_preprocessor, 'pts_bbox_head': pts_bbox_head})
        pts_bbox_head = fit_head(pts_bbox_head, limits)
        grid, voxel_layer = None, (data_preprocessor or {}).get('voxel_layer')
        if voxel_layer is not None and pts_middle_encoder is not None:
            pts_middle_encoder, grid = fit_encoder(
                pts_middle_encoder, voxel_layer, crops_range=crops_range
            )
            voxel_layer = {'sparse_shape': grid.shape, **voxel_layer}
            data_preprocessor = {**data_preprocessor, 'voxel_layer': voxel_layer}
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        camera = {'img_backbone': img_backbone, 'img_neck': img_neck}
        lidar = {
            'pts_voxel_encoder': pts_voxel_encoder,
            'pts_middle_encoder': pts_middle_encoder,
            'pts_backbone': pts_backbone,
            'pts_neck': pts_neck,
        }
        _check_parts(float32_parts, [*camera, *lidar, 'pts_bbox_head'])
        self.float32_parts = tuple(float32_parts)
        given = {'voxel_grid': grid, 'float32': 'pts_bbox_head' in float32_parts}
        self.pts_bbox_head = build_freezable(
            {**given, **pts_bbox_head}, MODELS, name='pts_bbox_head'
        )
        for modality, branch in (('camera', camera), ('lidar', lidar)):
            if self._uses(modality, branch):
                self._build_branch(branch, fast_path)
        if hasattr(self, 'pts_middle_encoder') and grid is None:
            raise ValueError(
                'data_preprocessor has no voxel_layer, which makes the voxels of pts_voxel_encoder'
            )
        if grid is not None:
            _check_bev_map(self.pts_middle_encoder, pts_backbone)
        self.grid_mask = grid_mask and MODELS.build(grid_mask)
        self.health_monitor = health_monitor and self._build_monitor(health_monitor, grid)
        self.planner = planner and self._build_planner(planner)

    def _build_branch(self, branch: Mapping[str, Mapping], fast_path: Mapping | None) -> None:
        for name, config in branch.items():
            part = build_freezable(config, MODELS, name=name)
            if fast_path is not None:
                add_fast_path(part, name=name, **fast_path)
            self.add_module(name, part)

    def _build_monitor(self, config: Mapping, grid: VoxelGrid | None) -> HealthMonitor:
        head = self.pts_bbox_head
        if set(head.modalities) != set(MODALITIES):
            raise ValueError(
                f'health_monitor compares {list(MODALITIES)}, but modalities is '
                f'{list(head.modalities)}; leave health_monitor out'
            )
        given = dict(
            type=HealthMonitor,
            point_cloud_range=head.point_cloud_range,
            voxel_grid=grid,
            bev_channels=head.shared_conv.in_channels,
            image_channels=head.hidden_dim,
        )
        return build_freezable({**given, **config}, MODELS, name='health_monitor')

    def _build_planner(self, config: Mapping) -> nn.Module:
        head = self.pts_bbox_head
        trained = [name for name, p in self.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f'planner needs a frozen detector, but {trained[0]} and {len(trained) - 1} other '
                'parameters are trained: set frozen=True in the config of every part'
            )
        given = dict(embed_dims=head.hidden_dim, num_layers=len(head.transformer.layers))
        return build_freezable({**given, **config}, MODELS, name='planner')

    def train(self, mode: bool = True) -> CmtDetector:
        """Refreshes the fast paths on a change of mode, since EMA may have swapped the weights."""
        if mode != self.training:
            renew_fast_paths(self)
        return super().train(mode)

    def extract_feat(self, batch_inputs_dict: Mapping) -> tuple[Tensor | None, Tensor | None]:
        """BEV map (B, C, height, width) and image maps (B, V, C, height, width).

        Either is ``None`` where the batch has no such input or the model has no such branch.
        """
        return (
            self.extract_pts_feat(batch_inputs_dict),
            self.extract_img_feat(batch_inputs_dict),
        )

    def extract_img_feat(self, batch_inputs_dict: Mapping) -> Tensor | None:
        """Image maps (B, V, C, height, width) of a batch, or ``None``.

        Args:
            batch_inputs_dict: ``imgs`` (B, V, 3, H, W), normalised; or ``features``, the output of
                ``img_backbone`` or ``img_neck`` as :meth:`image_maps` and this method return it.
        """
        features, imgs = batch_inputs_dict.get('features', {}), batch_inputs_dict.get('imgs')
        if 'img_neck' in features:
            return features['img_neck'][0]
        maps = self._cached_maps(features, 'img_backbone')
        if maps is None:
            if imgs is None or 'camera' not in self.pts_bbox_head.modalities:
                return None
            maps = self.image_maps(imgs)
        flat = self._run_part('img_neck', [m.flatten(0, 1) for m in maps])[0]
        return flat.unflatten(0, maps[0].shape[:2])

    def extract_pts_feat(self, batch_inputs_dict: Mapping) -> Tensor | None:
        """BEV map (B, C, height, width) of a batch, or ``None``.

        Args:
            batch_inputs_dict: ``voxels`` and ``points``, see :meth:`bev_maps`; or ``features``, the
                output of ``pts_backbone`` or ``pts_neck`` as :meth:`bev_maps` and this method
                return it.
        """
        features, voxels = batch_inputs_dict.get('features', {}), batch_inputs_dict.get('voxels')
        if 'pts_neck' in features:
            return features['pts_neck'][0]
        maps = self._cached_maps(features, 'pts_backbone')
        if maps is None:
            if voxels is None or 'lidar' not in self.pts_bbox_head.modalities:
                return None
            maps = self.bev_maps(voxels, len(batch_inputs_dict['points']))
        return self._run_part('pts_neck', maps)[0]

    def image_maps(self, imgs: Tensor) -> list[Tensor]:
        """Normalised images (B, V, 3, H, W) -> the backbone's maps, each (B, V, C, h, w)."""
        flat = imgs.flatten(0, 1)
        if self.grid_mask is not None:
            flat = self.grid_mask(flat)
        maps = self._run_part('img_backbone', flat)
        return [m.unflatten(0, imgs.shape[:2]) for m in maps]

    def bev_maps(self, voxels: Mapping[str, Tensor], batch_size: int) -> list[Tensor]:
        """Voxels -> the BEV backbone's maps, each (B, C, height, width).

        Args:
            voxels: ``voxels`` (N, points, features), ``num_points`` (N,) and ``coors`` (N, 4):
                sample, z, y, x. Samples may be without any.
            batch_size: B, the number of clouds.
        """
        if len(voxels['voxels']):
            features = self._run_part(
                'pts_voxel_encoder', voxels['voxels'], voxels['num_points'], voxels['coors']
            )
            bev = self._run_part('pts_middle_encoder', features, voxels['coors'], batch_size)
        else:
            bev = self._empty_bev(voxels['voxels'], batch_size)
        return [*self._run_part('pts_backbone', bev)]

    def _cached_maps(self, features: Mapping, backbone: str) -> list[Tensor] | None:
        """Cached maps of a backbone, without the statistics that follow them for a monitor."""
        maps = features.get(backbone)
        return maps[:-1] if maps is not None and self.health_monitor is not None else maps

    def _run_part(self, name: str, *inputs: Any) -> Any:
        """Output of a part; parts in ``float32_parts`` ignore autocast."""
        part = getattr(self, name)
        if name not in self.float32_parts:
            return part(*inputs)
        return in_float32(part, *inputs, device_type=self.data_preprocessor.device.type)

    def loss(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> dict[str, Tensor]:
        """Losses of a batch, see :meth:`CmtHead.loss`, and auxiliary losses of other parts.

        Raises:
            FloatingPointError: an output is not finite; the message names the batch's samples.
        """
        features = self.extract_feat(batch_inputs_dict)
        if self.planner is not None:
            with torch.no_grad():
                output = self.pts_bbox_head(*features, _metas(batch_data_samples))
            ego = batch_inputs_dict.get('ego')
            return self.planner.loss(self._plan(output, ego), ego)
        losses = {}
        if self._trained_parts() - {'health_monitor'}:
            losses = self._head_losses(features, batch_inputs_dict, batch_data_samples)
        if 'health_monitor' in self._trained_parts():
            logits, cameras = self._health(features, batch_inputs_dict, batch_data_samples)
            health = batch_inputs_dict.get('health')
            losses.update(self.health_monitor.loss(logits, health, cameras.camera_mask))
        return losses

    def _trained_parts(self) -> set[str]:
        """Names of the parts with parameters that train."""
        return {name.split('.')[0] for name, p in self.named_parameters() if p.requires_grad}

    def _head_losses(
        self,
        features: tuple[Tensor | None, Tensor | None],
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> dict[str, Tensor]:
        try:
            health = batch_inputs_dict.get('health')
            losses = self.pts_bbox_head.loss(*features, batch_data_samples, health=health)
            losses.update(take_auxiliary_losses(self))
        except FloatingPointError as error:
            samples = ', '.join(sample_names(batch_data_samples))
            raise FloatingPointError(f'{error}\nsamples: {samples}') from error
        return self._with_absent_branches(losses, *features)

    def _health(
        self,
        features: tuple[Tensor, Tensor],
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> tuple[Health, Cameras]:
        """Logits of the monitor, and the cameras of the batch."""
        bev, images = features
        if bev is None or images is None:
            raise ValueError(
                'health_monitor compares LiDAR and cameras, but the batch has only one of them; a '
                'sensor that failed gives an empty cloud or black images'
            )
        cameras = batch_cameras([s.metainfo for s in batch_data_samples], like=images)
        # Detached: the monitor must not change a model that trains.
        inputs = (bev.detach(), images.detach(), batch_inputs_dict, cameras)
        device_type = self.data_preprocessor.device.type
        return in_float32(self.health_monitor, *inputs, device_type=device_type), cameras

    def parse_losses(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, OrderedDict[str, float]]:
        """Sum of the losses, and the values to log as floats.

        All values are read in one transfer, whereas MMEngine would wait for the device once each.
        """
        loss, log_vars = super().parse_losses(losses)
        values = torch.stack([*log_vars.values()]).detach().tolist()
        return loss, OrderedDict(zip(log_vars, values, strict=True))

    def predict(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> Sequence[Det3DDataSample]:
        """Fills ``pred_instances_3d`` of each sample: boxes in the LiDAR frame, bottom-centred.

        With a monitor also ``pred_health`` and, if the batch has health maps, ``gt_health``; see
        :func:`~projects.cmt_aqr.health.attach_health`. With a planner also ``ego_plan`` (T, 3), see
        :class:`~projects.cmt_aqr.planning.PlanHead`.
        """
        features = self.extract_feat(batch_inputs_dict)
        return self.predict_from(features, batch_inputs_dict, batch_data_samples)

    def predict_from(
        self,
        features: tuple[Tensor | None, Tensor | None],
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> Sequence[Det3DDataSample]:
        """Returns what :meth:`predict` does, from features of :meth:`extract_feat`."""
        head, metas = self.pts_bbox_head, _metas(batch_data_samples)
        output = head(*features, metas, all_layers=False)
        samples = self.add_pred_to_datasample(batch_data_samples, head.boxes(output, metas))
        if self.health_monitor is not None:
            logits, _ = self._health(features, batch_inputs_dict, samples)
            attach_health(samples, logits, batch_inputs_dict.get('health'))
        if self.planner is not None:
            plans = self._plan(output, batch_inputs_dict.get('ego'))
            for sample, plan in zip(samples, plans, strict=True):
                sample.ego_plan = plan
        return samples

    def _plan(self, output: HeadOutput, ego: Mapping[str, Tensor] | None) -> Tensor:
        """(B, T, 3): waypoints in the ego frame."""
        return self.planner(output, self.pts_bbox_head.transformer, ego)

    def _forward(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> list[dict[str, Tensor]]:
        """Raw outputs of the head.

        Raises:
            TypeError: the inputs are a bare tensor, as MMDetection3D's ``get_flops.py`` gives them.
        """
        if isinstance(batch_inputs_dict, Tensor):
            raise TypeError(
                'CmtDetector takes a dict of images and voxels, not a tensor: in place of '
                'get_flops.py, use `python tools/benchmark.py model CONFIG`'
            )
        features = self.extract_feat(batch_inputs_dict)
        return self.pts_bbox_head(*features, _metas(batch_data_samples)).tasks

    def _uses(self, modality: str, branch: Mapping[str, Mapping | None]) -> bool:
        """Whether to build a branch, which must be configured completely or not at all."""
        missing = [name for name, config in branch.items() if config is None]
        wanted = modality in self.pts_bbox_head.modalities
        if (wanted and missing) or (not wanted and len(missing) < len(branch)):
            raise ValueError(
                f'the head was built for {list(self.pts_bbox_head.modalities)}, '
                f'but of the {modality} branch {missing or "nothing"} is missing: configure '
                "all parts of a branch and name it in the head's modalities, or neither"
            )
        return wanted

    def _with_absent_branches(
        self, losses: dict[str, Tensor], bev: Tensor | None, images: Tensor | None
    ) -> dict[str, Tensor]:
        """Adds zero gradients for the parameters of a branch without input.

        Distributed training waits for the gradient of every parameter on every rank.
        """
        absent = []
        for modality, features in (('lidar', bev), ('camera', images)):
            if features is None and modality in self.pts_bbox_head.modalities:
                absent += self._parts_of(modality)
        parameters = [p for part in absent for p in part.parameters() if p.requires_grad]
        if parameters:
            losses['loss_cls'] = losses['loss_cls'] + 0 * sum(p.sum() for p in parameters)
        return losses

    def _parts_of(self, modality: str) -> list[nn.Module]:
        """Modules that only one modality uses."""
        head = self.pts_bbox_head
        if modality == 'camera':
            return [self.img_backbone, self.img_neck, head.rv_embedding]
        parts = [self.pts_voxel_encoder, self.pts_middle_encoder, self.pts_backbone, self.pts_neck]
        return [*parts, head.shared_conv]

    def _empty_bev(self, like: Tensor, batch_size: int) -> Tensor:
        """Returns a BEV map of zeros (B, C, height, width) for a batch without voxels.

        spconv's kernels do not accept zero voxels, so the encoders do not run. Their parameters get
        a gradient of zero, as distributed training requires.
        """
        bev = like.new_zeros(batch_size, *bev_shape(self.pts_middle_encoder))
        encoders = (self.pts_voxel_encoder, self.pts_middle_encoder)
        trained = [p for part in encoders for p in part.parameters() if p.requires_grad]
        return bev + 0 * sum(parameter.sum() for parameter in trained)


def _metas(samples: Sequence[Det3DDataSample]) -> list[Mapping]:
    return [sample.metainfo for sample in samples]


def _check_parts(names: Sequence[str], known: Sequence[str]) -> None:
    """Raises a ValueError for an unknown name in ``float32_parts``."""
    if isinstance(names, str) or not set(names) <= set(known):
        raise ValueError(f'float32_parts is {names!r}; it must be a list of names out of {known}')


def _check_bev_map(encoder: SparseEncoder, backbone: Mapping) -> None:
    """Raises a ValueError if backbone and neck cannot take the BEV map of this grid.

    It must have the channels of the backbone, and its sides must be divisible by the strides of the
    backbone, which the neck undoes.
    """
    channels, *sides = bev_shape(encoder)
    depth, *voxels = encoder.sparse_shape
    if channels != backbone['in_channels']:
        raise ValueError(
            f'pts_backbone.in_channels is {backbone["in_channels"]}, but the range has {depth - 1} '
            f'voxels along z, of which pts_middle_encoder makes {channels} channels: change the '
            'range or the voxel_size along z, or in_channels'
        )
    stride = math.prod(backbone.get('layer_strides', ()))
    if any(side % stride for side in sides):
        multiple = round(max(voxels) / max(sides)) * stride
        raise ValueError(
            f'the range has {voxels[1]} x {voxels[0]} voxels along x and y; pts_backbone and '
            f'pts_neck need multiples of {multiple}: change the range or the voxel_size'
        )


def bev_shape(encoder: SparseEncoder) -> tuple[int, int, int]:
    """Channels, height and width of a sparse encoder's output, from its convolutions alone."""
    sizes = encoder.sparse_shape
    for module in encoder.modules():
        if getattr(module, 'subm', True):  # not a convolution, or one that keeps the size
            continue
        axes = zip(
            sizes, module.kernel_size, module.stride, module.padding, module.dilation, strict=True
        )
        sizes = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in axes
        ]
    depth, height, width = sizes
    return encoder.output_channels * depth, height, width
