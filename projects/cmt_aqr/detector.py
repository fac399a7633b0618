"""The detector: images and points -> features -> head.

Shapes: B batch, V cameras.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmdet3d.models import Base3DDetector, SparseEncoder
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from .feature_cache import FeatureCache, Lookup
from .freezing import add_fast_path, build_freezable, renew_fast_paths
from .geometry import VoxelGrid
from .precision import in_float32
from .required_hooks import RequiresHooks
from .samples import sample_names

# As `custom_fp16` of the released CMT has it.
FLOAT32_PARTS = ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_bbox_head')


@MODELS.register_module()
class CmtDetector(RequiresHooks, Base3DDetector):
    """Cross Modal Transformer (Yan et al., ICCV 2023) of LiDAR and cameras, or of either.

    A branch that the config leaves out is not built. The config of every part may hold settings of
    :class:`~projects.cmt_aqr.freezing.FreezePolicy` beside its own arguments. Attribute names
    follow the released state dict.

    With a ``feature_cache``, which a hook may set, the frozen first stages of a branch run only for
    samples whose features are not cached, see :mod:`projects.cmt_aqr.feature_cache`.

    Args:
        pts_bbox_head: config of the head.
        data_preprocessor: config of the preprocessor, which also makes the voxels, those that lie
            in the ``sparse_shape`` of `pts_middle_encoder`.
        img_backbone: config of the image backbone.
        img_neck: config of its neck; the head takes the first map that it returns.
        pts_voxel_encoder: config of the voxel encoder.
        pts_middle_encoder: config of the sparse encoder.
        pts_backbone: config of the BEV backbone.
        pts_neck: config of its neck; the head takes the first map that it returns.
        grid_mask: config of an augmentation of the images as the backbone gets them.
        fast_path: settings of a :class:`~projects.cmt_aqr.freezing.FastPath` for every part of the
            branches, which computes the part while it is frozen; ``None`` for none.
        float32_parts: names of the parts above that compute in float32 under autocast; the others
            compute in half precision. The default is what the released CMT was trained with: image
            branch, BEV backbone and its neck in half precision, and of the head the kernels of
            cross-attention. MMDetection3D's sparse encoders compute in float32 in any case.
        init_cfg: as in mmengine.

    Raises:
        ValueError: only a part of a branch is configured, or a branch that the head has no use
            for; ``float32_parts`` has a name that is not a part's; a part cannot be frozen, or have
            a fast path, as its config says.
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
        fast_path: Mapping | None = None,
        float32_parts: Sequence[str] = FLOAT32_PARTS,
        init_cfg: Mapping | None = None,
    ) -> None:
        grid = _voxel_grid(data_preprocessor, pts_middle_encoder)
        if grid is not None:
            voxel_layer = {'sparse_shape': grid.shape, **data_preprocessor['voxel_layer']}
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
            if not self._uses(modality, branch):
                continue
            for name, config in branch.items():
                part = build_freezable(config, MODELS, name=name)
                if fast_path is not None:
                    add_fast_path(part, name=name, **fast_path)
                self.add_module(name, part)
        self.grid_mask = grid_mask and MODELS.build(grid_mask)
        self.feature_cache: FeatureCache | None = None

    def train(self, mode: bool = True) -> CmtDetector:
        """As ever; where the mode changes, weights may have been exchanged for averaged ones."""
        if mode != self.training:
            renew_fast_paths(self)
        return super().train(mode)

    def extract_feat(self, batch_inputs_dict: Mapping) -> tuple[Tensor | None, Tensor | None]:
        """BEV map (B, C, height, width) and image maps (B, V, C, height, width).

        Either is ``None`` where its input is missing or the model has no such branch.
        """
        return (
            self.extract_pts_feat(batch_inputs_dict.get('voxels'), batch_inputs_dict),
            self.extract_img_feat(batch_inputs_dict.get('imgs'), batch_inputs_dict),
        )

    def extract_img_feat(
        self, imgs: Tensor | None, batch_inputs_dict: Mapping | None = None
    ) -> Tensor | None:
        """(B, V, 3, H, W) normalised images -> (B, V, C, height, width).

        Args:
            imgs: of the samples that are not cached; without a cache, of all.
            batch_inputs_dict: its ``lookups``, if any, say what is cached.
        """
        lookups = (batch_inputs_dict or {}).get('lookups', {}).get('camera')
        if 'camera' not in self.pts_bbox_head.modalities or (imgs is None and lookups is None):
            return None
        return self._run_branch('camera', [self._image_maps, self._image_neck], imgs, lookups)

    def extract_pts_feat(
        self, voxels: Mapping[str, Tensor] | None, batch_inputs_dict: Mapping
    ) -> Tensor | None:
        """Voxels of the batch -> (B, C, height, width).

        Args:
            voxels: ``voxels`` (N, points, features), ``num_points`` (N,) and ``coors`` (N, 4):
                sample, z, y, x. Samples may be without any. Of the samples that are not cached;
                without a cache, of all.
            batch_inputs_dict: its ``points``, one cloud a sample, give their number; its
                ``lookups``, if any, say what is cached.
        """
        lookups = batch_inputs_dict.get('lookups', {}).get('lidar')
        if 'lidar' not in self.pts_bbox_head.modalities or (voxels is None and lookups is None):
            return None
        maps = partial(self._bev_maps, batch_size=len(batch_inputs_dict.get('points', ())))
        return self._run_branch('lidar', [maps, self._bev_neck], voxels, lookups)

    def _run_branch(
        self,
        branch: str,
        stages: Sequence[Callable],
        inputs: Tensor | Mapping | None,
        lookups: Sequence[Lookup] | None,
    ) -> Tensor:
        """Run the stages of a branch, the cached ones only for what is missing in the cache."""
        cached = 0
        if lookups is not None and self.feature_cache is not None:
            cached = self.feature_cache.num_stages(branch)
        if cached:
            compute = partial(_chain, stages[:cached], inputs)
            device = self.data_preprocessor.device
            inputs = self.feature_cache.complete(branch, lookups, compute, device=device)
        return _chain(stages[cached:], inputs)[0]

    def _image_maps(self, imgs: Tensor) -> list[Tensor]:
        """(B, V, 3, H, W) -> the backbone's maps, each (B, V, C, height, width)."""
        flat = imgs.flatten(0, 1)
        if self.grid_mask is not None:
            flat = self.grid_mask(flat)
        maps = self._run_part('img_backbone', flat)
        return [m.unflatten(0, imgs.shape[:2]) for m in maps]

    def _image_neck(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, V, ...) of the backbone -> the one that the head takes."""
        flat = self._run_part('img_neck', [m.flatten(0, 1) for m in maps])[0]
        return [flat.unflatten(0, maps[0].shape[:2])]

    def _bev_maps(self, voxels: Mapping[str, Tensor], batch_size: int) -> list[Tensor]:
        """Voxels -> the backbone's maps, each (B, C, height, width)."""
        if len(voxels['voxels']):
            features = self._run_part(
                'pts_voxel_encoder', voxels['voxels'], voxels['num_points'], voxels['coors']
            )
            bev = self._run_part('pts_middle_encoder', features, voxels['coors'], batch_size)
        else:
            bev = self._empty_bev(voxels['voxels'], batch_size)
        return [*self._run_part('pts_backbone', bev)]

    def _bev_neck(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the backbone -> the one that the head takes."""
        return [self._run_part('pts_neck', maps)[0]]

    def _run_part(self, name: str, *inputs: Any) -> Any:
        """Output of a part, in float32 also under autocast if it is one of those parts."""
        part = getattr(self, name)
        if name not in self.float32_parts:
            return part(*inputs)
        return in_float32(part, *inputs, device_type=self.data_preprocessor.device.type)

    def loss(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> dict[str, Tensor]:
        """Losses of a batch, see :meth:`CmtHead.loss`.

        Raises:
            FloatingPointError: an output is not finite; with the samples of the batch.
        """
        features = self.extract_feat(batch_inputs_dict)
        try:
            health = batch_inputs_dict.get('health')
            losses = self.pts_bbox_head.loss(*features, batch_data_samples, health=health)
        except FloatingPointError as error:
            samples = ', '.join(sample_names(batch_data_samples))
            raise FloatingPointError(f'{error}\nsamples: {samples}') from error
        return self._with_absent_branches(losses, *features)

    def parse_losses(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, OrderedDict[str, float]]:
        """Sum of the losses, and the numbers to log as floats, read back to the host all at once.

        MMEngine reads every number that it logs by itself, which holds the host as many times.
        """
        loss, log_vars = super().parse_losses(losses)
        values = torch.stack([*log_vars.values()]).detach().tolist()
        return loss, OrderedDict(zip(log_vars, values, strict=True))

    def predict(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> Sequence[Det3DDataSample]:
        """Fills ``pred_instances_3d`` of each sample: boxes in the LiDAR frame, bottom-centred."""
        results = self.pts_bbox_head.predict(
            *self.extract_feat(batch_inputs_dict), batch_data_samples
        )
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(
        self,
        batch_inputs_dict: Mapping,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> list[dict[str, Tensor]]:
        """Raw outputs of the head."""
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.pts_bbox_head(*self.extract_feat(batch_inputs_dict), metas).tasks

    def _uses(self, modality: str, branch: Mapping[str, Mapping | None]) -> bool:
        """Whether a branch is to be built; it is configured as a whole or not at all."""
        missing = [name for name, config in branch.items() if config is None]
        wanted = modality in self.pts_bbox_head.modalities
        if (wanted and missing) or (not wanted and len(missing) < len(branch)):
            raise ValueError(
                f'the head was built for {list(self.pts_bbox_head.modalities)}, '
                f'but of the {modality} branch {missing or "nothing"} is missing: '
                "configure a branch as a whole, and name it in the head's modalities"
            )
        return wanted

    def _with_absent_branches(
        self, losses: dict[str, Tensor], bev: Tensor | None, images: Tensor | None
    ) -> dict[str, Tensor]:
        """Give the parameters of a branch that had no input a gradient of zero.

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
        """The modules that only one modality uses."""
        head = self.pts_bbox_head
        if modality == 'camera':
            return [self.img_backbone, self.img_neck, head.rv_embedding]
        parts = [self.pts_voxel_encoder, self.pts_middle_encoder, self.pts_backbone, self.pts_neck]
        return [*parts, head.shared_conv]

    def _empty_bev(self, like: Tensor, batch_size: int) -> Tensor:
        """Map of zeros (B, C, height, width): the encoder's output for a batch without any voxel.

        spconv's kernels do not take zero voxels, so the encoder does not run. Its parameters get a
        gradient of zero, so that distributed training finds none unused.
        """
        bev = like.new_zeros(batch_size, *bev_shape(self.pts_middle_encoder))
        trained = [p for p in self.pts_middle_encoder.parameters() if p.requires_grad]
        return bev + 0 * sum(parameter.sum() for parameter in trained)


def _check_parts(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse ``float32_parts`` with a name that is not a part's."""
    if isinstance(names, str) or not set(names) <= set(known):
        raise ValueError(f'float32_parts is {names!r}; it must be a list of some of {known}')


def _chain(stages: Sequence[Callable], inputs: object) -> object:
    """What comes out of the last stage."""
    for stage in stages:
        inputs = stage(inputs)
    return inputs


def bev_shape(encoder: SparseEncoder) -> tuple[int, int, int]:
    """Channels, height and width of the map of a sparse encoder, from its convolutions alone."""
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


def _voxel_grid(
    data_preprocessor: Mapping | None, pts_middle_encoder: Mapping | None
) -> VoxelGrid | None:
    """The grid as the two parts that make it are configured; ``None`` where either is missing."""
    voxel_layer = (data_preprocessor or {}).get('voxel_layer')
    if voxel_layer is None or pts_middle_encoder is None:
        return None
    return VoxelGrid(voxel_layer['voxel_size'], pts_middle_encoder['sparse_shape'])
