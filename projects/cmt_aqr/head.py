"""The head of the Cross Modal Transformer (Yan et al., ICCV 2023): tokens -> queries -> boxes.

Shapes: B batch, V cameras, Q queries (denoising queries included), K tokens, C channels, L decoder
layers.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .aqr import Tokens
from .aqr.router import AdaptiveQueryRouter, RouterOutput, rename_router
from .cameras import Cameras, batch_cameras
from .denoising import DenoisingGenerator, DenoisingQueries
from .embeddings import MODALITIES, CmtEmbeddings
from .freezing import build_freezable
from .geometry import (
    VoxelGrid,
    unit_to_metres,
)
from .matching import GroundTruth, SetCriterion
from .matching.matcher import TaskOutput
from .precision import autocast_dtype, in_float32
from .task_head import CLASS_BRANCH, SeparateTaskHead
from .transformer import (
    CmtTransformer,
    DecoderStates,
    Routing,
)

BOX_BRANCHES = {'center': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}


class HeadOutput(NamedTuple):
    """Outputs of the head for a batch."""

    tasks: list[dict[str, Tensor]]
    """for each task ``center``, ``height``, ``dim``, ``rot``, ``vel`` and ``cls_logits``, each
    (L, B, Q, channels); ``center`` and ``height`` within the point-cloud range; in prediction of
    the last layer alone, with L = 1"""
    router: RouterOutput | None
    """``None`` without a router"""
    states: DecoderStates
    tokens: Tokens
    alone: dict[str, list[dict[str, Tensor]]]
    """outputs as ``tasks`` from the tokens of one modality alone, by modality; empty except in
    training with ``all_combinations``"""


@MODELS.register_module()
class CmtHead(CmtEmbeddings):
    """One head for LiDAR and cameras, or for either alone.

    A head built for both also takes a batch in which one input is missing.

    Args:
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`; by default the detector
            gives that of its voxels.
        tasks: class names of each task, in the order of the labels.
        transformer: options of :class:`~projects.cmt_aqr.transformer.CmtTransformer`, and settings
            of :class:`~projects.cmt_aqr.freezing.FreezePolicy` for its layers.
        box_coder: config of the box coder.
        assigner: config of the assigner.
        loss_cls: config of the classification loss.
        loss_bbox: config of the box loss.
        code_weights: weight of each of the ten numbers of a box code in the box loss.
        modalities: sensors that it is built for: ``lidar``, ``camera``, or both.
        in_channels: channels of the BEV map; needed with LiDAR.
        hidden_dim: C.
        num_query: number of learned queries.
        depth_num: number of points on the ray of each image token.
        wavelengths: longest and shortest wavelength in the embedding of a BEV position, as shares
            of the range; ``None`` takes the released ones, see
            :func:`~projects.cmt_aqr.transformer.position.sine_embedding`.
        init_local_attention: spread of the position embeddings of each modality, and optionally
            ``split_heads``, with which cross-attention starts out local, see
            :func:`~projects.cmt_aqr.transformer.init_local_attention.init_local_attention`; for
            training from scratch. ``None`` starts as the released CMT does.
        branch_channels: width of the regression branches.
        final_kernel: queries that each convolution of the branches spans: 1, or 3 as in the
            released model of LiDAR alone, see
            :class:`~projects.cmt_aqr.task_head.SeparateTaskHead`.
        denoising: options of :class:`~projects.cmt_aqr.denoising.DenoisingGenerator`;
            ``None`` trains without denoising queries.
        all_combinations: in training, also decode the tokens of each modality alone, by the same
            weights and with losses of their own (``lidar.*``, ``camera.*``): the modality-agnostic
            decoding of MEFormer (Cha et al., arXiv 2407.19156). Every sample needs a camera then.
        aqr: options of :class:`~projects.cmt_aqr.aqr.router.AdaptiveQueryRouter`, or of a subclass
            that ``type`` names. ``None`` is plain CMT.
        voxel_grid: grid of the voxels; the detector gives it. Needed by the router.
        float32: compute in float32 under autocast, except for the kernels of cross-attention, as
            the released CMT does; the detector gives it, see its ``float32_parts``.
        init_cfg: as in mmengine.

    Attributes:
        kernel_dtype: type in which the kernels of cross-attention compute without autocast;
            ``None`` for that of the weights. Set by
            :func:`~projects.cmt_aqr.inference.fold_for_inference`.

    Raises:
        ValueError: unknown or no modality; LiDAR without ``in_channels``; a malformed range;
            another ``final_kernel``; a router for one modality; ``all_combinations`` with a router
            or for one modality.
    """

    def __init__(
        self,
        *,
        point_cloud_range: Sequence[float],
        tasks: Sequence[Sequence[str]],
        transformer: Mapping,
        box_coder: Mapping,
        assigner: Mapping,
        loss_cls: Mapping,
        loss_bbox: Mapping,
        code_weights: Sequence[float],
        modalities: Sequence[str] = MODALITIES,
        in_channels: int | None = None,
        hidden_dim: int = 256,
        num_query: int = 900,
        depth_num: int = 64,
        wavelengths: tuple[float, float] | None = None,
        init_local_attention: Mapping[str, float] | None = None,
        branch_channels: int = 64,
        final_kernel: int = 1,
        denoising: Mapping | None = None,
        all_combinations: bool = False,
        aqr: Mapping | None = None,
        voxel_grid: VoxelGrid | None = None,
        float32: bool = True,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(
            point_cloud_range=point_cloud_range,
            modalities=modalities,
            in_channels=in_channels,
            hidden_dim=hidden_dim,
            num_query=num_query,
            depth_num=depth_num,
            wavelengths=wavelengths,
            init_cfg=init_cfg,
        )
        self.float32 = float32
        self.kernel_dtype: torch.dtype | None = None
        if all_combinations:
            self._check_all_combinations(aqr)
        self.all_combinations = all_combinations
        num_classes = [len(names) for names in tasks]
        self.num_classes = sum(num_classes)
        self.class_names = tuple(name for names in tasks for name in names)

        self._build_decoder(transformer, init_local_attention)
        self._build_task_heads(num_classes, branch_channels, final_kernel)
        self.router = None if aqr is None else self._build_router(aqr, voxel_grid)
        self.register_load_state_dict_pre_hook(rename_router)
        self.box_coder = TASK_UTILS.build(box_coder)
        self.make_denoising = None
        if denoising is not None:
            self.make_denoising = DenoisingGenerator(
                point_cloud_range=point_cloud_range, num_classes=self.num_classes, **denoising
            )
        self.criterion = SetCriterion(
            num_classes=num_classes,
            assigner=assigner,
            loss_cls=loss_cls,
            loss_bbox=loss_bbox,
            code_weights=code_weights,
            denoising_share=self.make_denoising and self.make_denoising.positive_share,
        )

    def _check_all_combinations(self, aqr: Mapping | None) -> None:
        if aqr is not None or len(self.modalities) < len(MODALITIES):
            raise ValueError(
                'all_combinations trains a head for LiDAR and cameras without a router: leave out '
                'aqr, which is trained afterwards, and name both modalities'
            )

    def _build_decoder(self, options: Mapping, local_spread: Mapping[str, float] | None) -> None:
        self.transformer = build_freezable(
            {'type': CmtTransformer, 'embed_dims': self.hidden_dim, **options},
            MODELS,
            name='pts_bbox_head.transformer',
        )
        if local_spread is not None:
            self.init_local_attention(self.transformer, local_spread)

    def _build_task_heads(self, num_classes: list[int], channels: int, final_kernel: int) -> None:
        self.task_heads = nn.ModuleList(
            SeparateTaskHead(
                self.hidden_dim,
                branches={**BOX_BRANCHES, CLASS_BRANCH: count},
                num_layers=len(self.transformer.layers),
                hidden_channels=channels,
                final_kernel=final_kernel,
            )
            for count in num_classes
        )

    def _build_router(self, options: Mapping, voxel_grid: VoxelGrid | None) -> AdaptiveQueryRouter:
        if set(self.modalities) != set(MODALITIES):
            raise ValueError(
                f'aqr routes between {list(MODALITIES)}, but modalities is '
                f'{list(self.modalities)}; leave aqr out'
            )
        given = dict(
            type=AdaptiveQueryRouter,
            embed_dims=self.hidden_dim,
            num_heads=self.transformer.num_heads,
            point_cloud_range=self.point_cloud_range,
            voxel_grid=voxel_grid,
        )
        return MODELS.build({**given, **options})

    def forward(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        metas: Sequence[Mapping],
        denoising: DenoisingQueries | None = None,
        *,
        all_layers: bool = True,
    ) -> HeadOutput:
        """Features -> outputs of every task and decoder layer.

        Args:
            bev: (B, in_channels, height, width), or ``None``.
            images: (B, V, C, height, width), or ``None``.
            metas: of each sample, with images: ``lidar2img`` (V_b, 4, 4), V_b at most V, and
                ``pad_shape``, height and width of the padded images.
            denoising: denoising queries, which precede the learned ones.
            all_layers: whether to compute the boxes of all decoder layers, or of the last alone.

        Raises:
            ValueError: no input at all, or one that the head was not built for.
        """
        self._check_inputs(bev, images)
        cameras = None if images is None else batch_cameras(metas, like=images)
        compute = partial(self.compute, cameras=cameras, denoising=denoising, all_layers=all_layers)
        device_type = self.reference_points.weight.device.type
        dtype = autocast_dtype(device_type)
        if dtype is None or not self.float32:
            return compute(bev, images, kernel_dtype=self.kernel_dtype)
        compute = partial(compute, kernel_dtype=dtype)
        return in_float32(compute, bev, images, device_type=device_type)

    def compute(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        *,
        cameras: Cameras | None,
        denoising: DenoisingQueries | None = None,
        kernel_dtype: torch.dtype | None = None,
        all_layers: bool = True,
    ) -> HeadOutput:
        """As :meth:`forward`, from tensors alone; ``kernel_dtype`` is that of cross-attention."""
        tokens = self.tokenize(bev, images, cameras)
        reference = self.reference(tokens.features.shape[0], denoising)
        query_pos = self._embed_queries(reference, cameras, learned=denoising is None)
        routed, routing = None, None
        if self.router is not None:
            slots = 0 if denoising is None else denoising.slots
            routed = self.router(query_pos, reference, tokens, cameras, slots)
            tokens, routing = routed.tokens, routed.routing
        decode = partial(
            self._decode_tokens,
            reference=reference,
            query_pos=query_pos,
            self_attn_mask=denoising and denoising.self_attn_mask(self.num_query),
            kernel_dtype=kernel_dtype,
            all_layers=all_layers,
        )
        (tasks, states), alone = decode(tokens, routing=routing), {}
        if self.all_combinations and self.training and bev is not None and images is not None:
            alone = {name: decode(part)[0] for name, part in tokens.by_modality().items()}
        return HeadOutput(tasks, routed, states, tokens, alone)

    def _embed_queries(
        self, reference: Tensor, cameras: Cameras | None, *, learned: bool
    ) -> Tensor:
        """(B, Q, C): as :meth:`embed_queries`; those of the learned queries alone are cached."""
        embed = partial(self.embed_queries, reference, cameras)
        if not learned:
            return embed()
        return self._cached('queries', (reference.shape[0], reference.dtype), cameras, embed)

    def _decode_tokens(
        self,
        tokens: Tokens,
        *,
        reference: Tensor,
        query_pos: Tensor,
        all_layers: bool,
        routing: Routing | None = None,
        **options: Tensor | torch.dtype | None,
    ) -> tuple[list[dict[str, Tensor]], DecoderStates]:
        """Outputs of every task, and the decoder's states; ``options`` are its own."""
        states = self.transformer(
            query_pos,
            tokens=tokens.features,
            token_pos=tokens.position,
            routing=routing,
            token_mask=tokens.token_mask,
            **options,
        )
        outputs = (
            head(states.hidden) if all_layers else head.last_layer(states.hidden[-1])
            for head in self.task_heads
        )
        return [self._place(task, reference) for task in outputs], states

    def loss(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        batch_data_samples: Sequence[Det3DDataSample],
        health: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer, the last without a prefix, and of the router.

        See :meth:`forward` for the other inputs.

        Args:
            health: maps of the healthy share of the input, for the router's reliability loss; see
                :func:`~projects.cmt_aqr.aqr.health.token_health`.

        Raises:
            ValueError: with ``all_combinations``, a sample without a camera.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        if self.all_combinations:
            self._check_cameras(bev, images, metas)
        truth = self.ground_truth(batch_data_samples)
        denoising = None
        if self.make_denoising is not None:
            denoising = self.make_denoising(truth, num_query=self.num_query)
        outputs = self(bev, images, metas, denoising)
        losses = self.losses(outputs.tasks, truth, denoising)
        for modality, tasks in outputs.alone.items():
            own = self.losses(tasks, truth, denoising)
            losses.update({f'{modality}.{name}': loss for name, loss in own.items()})
        if self.router is not None:
            losses.update(self.router.loss(outputs.router, health))
        return losses

    @staticmethod
    def _check_cameras(bev: Tensor | None, images: Tensor | None, metas: Sequence[Mapping]) -> None:
        if bev is None or images is None or not all(len(meta['lidar2img']) for meta in metas):
            raise ValueError(
                'all_combinations decodes LiDAR and cameras of every sample alone, but the batch '
                'has a sample without them: leave such samples out, or set all_combinations=False'
            )

    def losses(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        truth: GroundTruth,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """Losses of the boxes; ``outputs`` are the ``tasks`` of :meth:`forward`."""
        tasks = [TaskOutput(self.box_coder.join(task), task[CLASS_BRANCH]) for task in outputs]
        if denoising is None:
            return self.criterion(tasks, truth)
        learned = [TaskOutput(*(x[:, :, denoising.slots :] for x in task)) for task in tasks]
        place = (slice(None), denoising.sample, denoising.slot)
        noised = [TaskOutput(*(x[place] for x in task)) for task in tasks]
        return self.criterion(learned, truth, noised, denoising.targets)

    def ground_truth(self, samples: Sequence[Det3DDataSample]) -> GroundTruth:
        """The boxes of the head's classes within its range; those labelled -1 are left out."""
        return GroundTruth.of(
            [sample.gt_instances_3d for sample in samples],
            num_classes=self.num_classes,
            point_cloud_range=self.point_cloud_range,
            like=self.reference_points.weight,
        )

    def predict(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> list[InstanceData]:
        """The best boxes of each sample; see :meth:`forward`."""
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.boxes(self(bev, images, metas, all_layers=False), metas)

    def boxes(self, output: HeadOutput, metas: Sequence[Mapping]) -> list[InstanceData]:
        """The best boxes of each sample, of the last decoder layer."""
        return [self._decode(output.tasks, i, meta) for i, meta in enumerate(metas)]

    def _decode(
        self, outputs: Sequence[Mapping[str, Tensor]], index: int, meta: Mapping
    ) -> InstanceData:
        boxes, scores, labels = self.box_coder.decode(
            [self.box_coder.join(task)[-1, index] for task in outputs],
            [task[CLASS_BRANCH][-1, index] for task in outputs],
        )
        centred = meta['box_type_3d'](boxes, box_dim=boxes.shape[-1], origin=(0.5, 0.5, 0.5))
        return InstanceData(bboxes_3d=centred, scores_3d=scores, labels_3d=labels)

    def _place(self, outputs: dict[str, Tensor], reference: Tensor) -> dict[str, Tensor]:
        """Outputs with centre and height in metres, instead of offsets from the reference point."""
        start = inverse_sigmoid(reference)
        unit = torch.cat([outputs['center'], outputs['height']], dim=-1) + start
        metres = unit_to_metres(unit.sigmoid(), self.point_cloud_range)
        return {**outputs, 'center': metres[..., :2], 'height': metres[..., 2:]}
