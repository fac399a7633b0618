"""The head of the Cross Modal Transformer (Yan et al., ICCV 2023): tokens -> queries -> boxes.

Shapes: B batch, V cameras, Q queries (denoising queries included), K tokens, C channels, L decoder
layers.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .aqr import (
    FeatureScaling,
    ReliabilityLoss,
    TokenLayout,
    Windows,
    bev_windows,
    camera_windows,
    token_health,
)
from .cameras import Cameras, batch_cameras
from .denoising import DenoisingGenerator, DenoisingQueries
from .freezing import build_freezable
from .geometry import (
    Projection,
    VoxelGrid,
    bev_grid,
    check_range,
    project,
    token_pixels,
    unit_to_metres,
)
from .matching import GroundTruth, SetCriterion
from .matching.matcher import TaskOutput
from .precision import autocast_dtype, in_float32
from .task_head import CLASS_BRANCH, SeparateTaskHead
from .transformer import (
    CmtTransformer,
    Position,
    Routing,
    TokenGroups,
    ray_code,
    sine_embedding,
    start_local,
)

MODALITIES = ('lidar', 'camera')
DENOISING_RULES = ('same', 'neutral')
BOX_BRANCHES = {'center': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}


class Tokens(NamedTuple):
    """What queries attend to."""

    features: Tensor
    """(B, K, C), LiDAR first"""
    position: Tensor
    """(B, K, C), position embedding"""
    present: Tensor | None
    """(B, K), bool, or None where every token is there"""
    layout: TokenLayout
    """where the tokens of each sensor lie"""


class SensorWeights(NamedTuple):
    """How the router weighs the sensors for each query."""

    weights: Tensor
    """(B, Q, M), zero for queries that it leaves alone"""
    windows: list[Windows]
    """what it looked at, for every sensor that is there"""
    denoising_slots: int
    """how many of the queries, the first, are denoising queries"""


class HeadOutput(NamedTuple):
    """What the head makes of a batch."""

    tasks: list[dict[str, Tensor]]
    """for each task ``center``, ``height``, ``dim``, ``rot``, ``vel`` and ``cls_logits``, each
    (L, B, Q, channels); ``center`` and ``height`` within the point-cloud range"""
    tokens: Tokens
    """what the queries attended to, as it came from the sensors"""
    router: SensorWeights | None
    """``None`` without a router"""


@MODELS.register_module()
class CmtHead(BaseModule):
    """One head for LiDAR and cameras, or for either alone.

    A head built for both also takes a batch in which one input is missing.

    Args:
        point_cloud_range: metres, see :mod:`projects.cmt_aqr.geometry`.
        tasks: class names of each task, in the order of the labels.
        transformer: options of :class:`~projects.cmt_aqr.transformer.CmtTransformer`, and settings
            of :class:`~projects.cmt_aqr.freezing.FreezePolicy` for its layers.
        box_coder: config of the box coder.
        assigner: config of the assigner.
        loss_cls: config of the classification loss.
        loss_bbox: config of the box loss.
        code_weights: weight of each of the ten numbers of a box code in the box loss.
        modalities: what it is built for: ``lidar``, ``camera``, or both.
        in_channels: channels of the BEV map; needed with LiDAR.
        hidden_dim: C.
        num_query: learned queries.
        depth_num: points on the ray of each image token.
        wavelengths: of the BEV position's sines, longest and shortest as shares of the range;
            ``None`` takes the released ones, see
            :func:`~projects.cmt_aqr.transformer.position.sine_embedding`.
        local_start: spread of the position embeddings for each modality, with which
            cross-attention starts out local, see
            :func:`~projects.cmt_aqr.transformer.local_start.start_local`; for training from
            scratch. ``None`` starts as the released CMT does, whose queries look everywhere.
        branch_channels: width of the regression branches.
        final_kernel: queries that each convolution of the branches spans: 1, or 3 as in the
            released model of LiDAR alone, see
            :class:`~projects.cmt_aqr.task_head.SeparateTaskHead`.
        denoising: options of :class:`~projects.cmt_aqr.denoising.DenoisingGenerator`;
            ``None`` trains without denoising queries.
        aqr: the Adaptive Query Router. ``None`` is plain CMT; otherwise

            - ``weight_generator``, ``bias_generator``: configs of the two modules;
            - ``windows``: cells along each side of a query's window, for ``lidar`` and ``camera``;
            - ``denoising``: ``same``, the default, routes denoising queries as all others;
              ``neutral`` gives them zero weights;
            - ``feature_scaling``: options of
              :class:`~projects.cmt_aqr.aqr.feature_scaling.FeatureScaling`, an ablation, off by
              default; ``bias_generator=None`` leaves it alone with the weights;
            - ``reliability``: options of :class:`~projects.cmt_aqr.aqr.reliability.ReliabilityLoss`
              for ``loss_reliability``, off by default. Samples then need ``health``, see
              :func:`~projects.cmt_aqr.aqr.health.token_health`;
            - ``oracle``: whether queries get the targets of that loss in place of the router's
              weights, at test time too. It tells what a router could gain that knew all damage.
        voxel_grid: of the points; the detector gives it. Needed by the router with LiDAR.
        float32: compute in float32 under autocast, except for the kernels of cross-attention, as
            the released CMT does; the detector gives it, see its ``float32_parts``.
        init_cfg: as in mmengine.

    Raises:
        ValueError: unknown or no modality; LiDAR without ``in_channels``; a malformed range;
            another ``final_kernel``; a router for one modality, without window sizes or voxel grid,
            with an unknown rule for denoising queries, or whose weights nothing uses; a hard choice
            with parts that do not go with it.
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
        local_start: Mapping[str, float] | None = None,
        branch_channels: int = 64,
        final_kernel: int = 1,
        denoising: Mapping | None = None,
        aqr: Mapping | None = None,
        voxel_grid: VoxelGrid | None = None,
        float32: bool = True,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(point_cloud_range)
        _check_modalities(modalities, in_channels)
        self.point_cloud_range = tuple(point_cloud_range)
        self.modalities = tuple(modalities)
        self.hidden_dim = hidden_dim
        self.depth_num = depth_num
        self.wavelengths = wavelengths
        self.float32 = float32
        num_classes = [len(names) for names in tasks]
        self.num_classes = sum(num_classes)

        self._build_embeddings(in_channels, num_query)
        self.transformer = build_freezable(
            {'type': CmtTransformer, 'embed_dims': hidden_dim, **transformer},
            MODELS,
            name='pts_bbox_head.transformer',
        )
        if local_start is not None:
            start_local(self.transformer, self._positions(local_start))
        self.task_heads = nn.ModuleList(
            SeparateTaskHead(
                hidden_dim,
                branches={**BOX_BRANCHES, CLASS_BRANCH: count},
                num_layers=len(self.transformer.layers),
                hidden_channels=branch_channels,
                final_kernel=final_kernel,
            )
            for count in num_classes
        )
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

        self.aqr_weight_generator = self.attention_bias_generator = self.feature_scaling = None
        self.reliability = None
        self.oracle = False
        if aqr is not None:
            self._build_aqr(**aqr, voxel_grid=voxel_grid)

    def _build_aqr(
        self,
        *,
        weight_generator: Mapping,
        bias_generator: Mapping | None,
        windows: Mapping[str, int],
        voxel_grid: VoxelGrid | None,
        denoising: str = 'same',
        feature_scaling: Mapping | None = None,
        reliability: Mapping | None = None,
        oracle: bool = False,
    ) -> None:
        _check_aqr(
            self.modalities,
            windows=windows,
            voxel_grid=voxel_grid,
            denoising=denoising,
            used=bias_generator is not None or feature_scaling is not None,
        )
        self.window_sizes = dict(windows)
        self.voxel_grid = voxel_grid
        self.denoising_rule = denoising
        self.aqr_weight_generator = MODELS.build(
            {'embed_dims': self.hidden_dim, **weight_generator}
        )
        if bias_generator is not None:
            self.attention_bias_generator = MODELS.build(
                {
                    'num_heads': self.transformer.num_heads,
                    'num_layers': len(self.transformer.layers),
                    **bias_generator,
                }
            )
        if feature_scaling is not None:
            self.feature_scaling = FeatureScaling(**feature_scaling)
        activation = self.aqr_weight_generator.activation
        if reliability is not None:
            self.reliability = ReliabilityLoss(activation=activation, **reliability)
        if oracle and (self.reliability is None or activation == 'none'):
            raise ValueError(
                'aqr.oracle takes the targets of aqr.reliability for weights: give its options, '
                "and weight_generator an activation other than 'none'"
            )
        self.oracle = oracle
        if activation == 'none' or (bias_generator or {}).get('form') == 'hard':
            self._check_hard_choice()

    def _check_hard_choice(self) -> None:
        form = getattr(self.attention_bias_generator, 'form', None)
        generator = self.aqr_weight_generator
        if (
            (form, generator.activation, generator.groups) != ('hard', 'none', 'modality')
            or self.feature_scaling is not None
            or self.reliability is None
        ):
            raise ValueError(
                "a hard choice takes form='hard' of bias_generator, activation='none' and "
                "groups='modality' of weight_generator, no feature_scaling, and a reliability "
                f'loss, from which alone it learns; given are form={form!r}, '
                f'activation={generator.activation!r}, groups={generator.groups!r}, '
                f'{"no" if self.feature_scaling is None else "a"} feature_scaling and '
                f'{"no" if self.reliability is None else "a"} reliability loss'
            )

    def _build_embeddings(self, in_channels: int | None, num_query: int) -> None:
        channels = self.hidden_dim
        if 'lidar' in self.modalities:
            self.shared_conv = ConvModule(
                in_channels, channels, kernel_size=3, padding=1, norm_cfg={'type': 'BN2d'}
            )
        if 'camera' in self.modalities:
            self.rv_embedding = _mlp(3 * self.depth_num, 4 * channels, channels)
        self.bev_embedding = _mlp(2 * channels, channels, channels)
        self.reference_points = nn.Embedding(num_query, 3)
        nn.init.uniform_(self.reference_points.weight)

    def _positions(self, spread: Mapping[str, float]) -> list[Position]:
        """What :func:`start_local` needs to know of each modality."""
        positions = []
        if 'lidar' in self.modalities:
            code = sine_embedding(torch.rand(1024, 2), self.hidden_dim, self.wavelengths)
            positions.append(Position(self.bev_embedding, code, spread['lidar']))
        if 'camera' in self.modalities:
            # Rays from the middle of the range in all directions stand for those of pixels.
            rays = torch.eye(4).expand(1024, 4, 4).clone()
            rays[:, :3, 3] = unit_to_metres(torch.full((3,), 0.5), self.point_cloud_range)
            directions = F.normalize(torch.randn(1024, 1, 3), dim=-1)
            code = self._ray_code(directions, rays)[:, 0]
            positions.append(Position(self.rv_embedding, code, spread['camera']))
        return positions

    def forward(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        metas: Sequence[Mapping],
        denoising: DenoisingQueries | None = None,
    ) -> HeadOutput:
        """Features -> outputs of every task and decoder layer.

        Args:
            bev: (B, in_channels, height, width), or ``None``.
            images: (B, V, C, height, width), or ``None``.
            metas: of each sample, with images: ``lidar2img`` (V_b, 4, 4), V_b at most V, and
                ``pad_shape``, height and width of the padded images.
            denoising: put before the learned queries.

        Raises:
            ValueError: no input at all, or one that the head was not built for.
        """
        self._check_inputs(bev, images)
        compute = partial(self._compute, metas=metas, denoising=denoising)
        device_type = self.reference_points.weight.device.type
        dtype = autocast_dtype(device_type)
        if dtype is None or not self.float32:
            return compute(bev, images)
        compute = partial(compute, kernel_dtype=dtype)
        return in_float32(compute, bev, images, device_type=device_type)

    def _compute(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        *,
        metas: Sequence[Mapping],
        denoising: DenoisingQueries | None,
        kernel_dtype: torch.dtype | None = None,
    ) -> HeadOutput:
        """As :meth:`forward`; ``kernel_dtype`` is that of cross-attention."""
        cameras = None if images is None else batch_cameras(metas, like=images)
        tokens = self.tokenize(bev, images, cameras)
        reference = self.reference(len(metas), denoising)
        query_pos = self.embed_queries(reference, cameras)
        slots = 0 if denoising is None else denoising.slots
        router = self.weigh(query_pos, reference, tokens, cameras, slots)
        if self.oracle:
            router = self._with_true_health(router, tokens, metas)
        features, routing = self.route(router, tokens)
        hidden = self.transformer(
            query_pos,
            tokens=features,
            token_pos=tokens.position,
            self_mask=None if denoising is None else denoising.may_look(self.num_query),
            routing=routing,
            present=tokens.present,
            kernel_dtype=kernel_dtype,
        )
        tasks = [self._place(task_head(hidden), reference) for task_head in self.task_heads]
        return HeadOutput(tasks, tokens, router)

    @property
    def num_query(self) -> int:
        """Learned queries."""
        return self.reference_points.num_embeddings

    def tokenize(
        self, bev: Tensor | None, images: Tensor | None, cameras: Cameras | None
    ) -> Tokens:
        """Flatten the feature maps into one sequence, LiDAR first."""
        layout = TokenLayout.of(bev, images)
        features, position = [], []
        if bev is not None:
            bev = self.shared_conv(bev)
            features.append(bev.flatten(2).transpose(1, 2))
            cells = self._embed_bev(bev_grid(*bev.shape[-2:], like=bev))
            position.append(cells.expand(len(bev), -1, -1))
        if images is not None:
            features.append(images.flatten(3).transpose(2, 3).flatten(1, 2))
            pixels = token_pixels(*images.shape[-2:], cameras.image_shape, like=cameras.lidar2img)
            rays = self._embed_rays(
                pixels.expand(*cameras.present.shape, -1, -1), cameras.img2lidar
            )
            position.append(rays.flatten(1, 2))
        return Tokens(
            torch.cat(features, dim=1),
            torch.cat(position, dim=1),
            _present_tokens(cameras, layout),
            layout,
        )

    def reference(self, batch_size: int, denoising: DenoisingQueries | None) -> Tensor:
        """(B, Q, 3): where each query starts, in the unit range."""
        learned = self.reference_points.weight.expand(batch_size, -1, -1)
        if denoising is None:
            return learned
        return torch.cat([denoising.reference, learned], dim=1)

    def embed_queries(self, reference: Tensor, cameras: Cameras | None) -> Tensor:
        """(B, Q, C): where a query is in BEV, and on the ray of every camera that sees it."""
        reference = inverse_sigmoid(reference).sigmoid()  # keeps it inside of the range
        embedded = self._embed_bev(reference)
        if cameras is None:
            return embedded
        projection = self._project(reference, cameras)
        # Only pairs of a camera and a query that it sees are embedded: about one in five.
        sample, camera, query = torch.where(projection.visible & cameras.present[..., None])
        rays = self._embed_rays(
            projection.pixels[sample, camera, query][:, None], cameras.img2lidar[sample, camera]
        )
        return embedded.index_put((sample, query), rays[:, 0].to(embedded), accumulate=True)

    def weigh(
        self,
        query_pos: Tensor,
        reference: Tensor,
        tokens: Tokens,
        cameras: Cameras | None,
        denoising_slots: int = 0,
    ) -> SensorWeights | None:
        """Weigh the sensors for each query; ``None`` without a router.

        Args:
            query_pos: (B, Q, C), query embedding.
            reference: (B, Q, 3), in the unit range.
            tokens: what the queries attend to.
            cameras: of the batch, or ``None`` without images.
            denoising_slots: how many of the queries, the first, are denoising queries.
        """
        if self.aqr_weight_generator is None:
            return None
        windows = self._windows(reference, cameras, tokens.layout)
        weights = self.aqr_weight_generator(
            query_pos,
            tokens.features + tokens.position,
            tokens.features,
            layout=tokens.layout,
            windows=windows,
            present=None if cameras is None else cameras.present,
        )
        if self.denoising_rule == 'neutral':
            weights = F.pad(weights[:, denoising_slots:], (0, 0, denoising_slots, 0))
        return SensorWeights(weights, windows, denoising_slots)

    def route(
        self, router: SensorWeights | None, tokens: Tokens
    ) -> tuple[Tensor, Routing | list[Routing] | None]:
        """Turn weights into what attention works on.

        Returns:
            features of the tokens (B, K, C), as they are unless they are scaled; and what is asked
            of attention, in all layers or in each; ``None`` for nothing.
        """
        features, routing = tokens.features, None
        if router is None:
            return features, routing
        if self.feature_scaling is not None:
            features = self.feature_scaling(
                features,
                router.weights,
                windows=router.windows,
                layout=tokens.layout,
                denoising_slots=router.denoising_slots,
            )
        if self.attention_bias_generator is not None:
            routing = self.attention_bias_generator(
                router.weights, groups=self._groups(tokens), windows=router.windows
            )
        return features, routing

    def _groups(self, tokens: Tokens) -> TokenGroups:
        """The M groups of tokens, as the router has them."""
        return tokens.layout.groups(self.aqr_weight_generator.groups, tokens.features.device)

    @torch.no_grad()
    def _windows(
        self, reference: Tensor, cameras: Cameras | None, layout: TokenLayout
    ) -> list[Windows]:
        """Windows of every query, on the BEV map and in every camera that sees it."""
        windows = []
        if layout.bev is not None:
            windows.append(
                bev_windows(
                    unit_to_metres(reference, self.point_cloud_range),
                    layout,
                    size=self.window_sizes['lidar'],
                    point_cloud_range=self.point_cloud_range,
                    cell_size=self.voxel_grid.cell_size(layout.bev),
                )
            )
        if layout.image is not None:
            windows.append(
                camera_windows(
                    self._project(reference, cameras),
                    cameras.present,
                    layout,
                    size=self.window_sizes['camera'],
                    image_shape=cameras.image_shape,
                )
            )
        return windows

    def _project(self, reference: Tensor, cameras: Cameras) -> Projection:
        """(B, Q, 3) in the unit range, as every camera sees it."""
        points = unit_to_metres(reference, self.point_cloud_range)
        return project(points, cameras.lidar2img, cameras.image_shape)

    def loss(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer, the last without a prefix, and the router's.

        See :meth:`forward` for what is needed; a reliability loss needs the ``health`` of each
        sample too, see :func:`~projects.cmt_aqr.aqr.health.token_health`.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        truth = self.ground_truth(batch_data_samples)
        denoising = None
        if self.make_denoising is not None:
            denoising = self.make_denoising(truth, num_query=self.num_query)
        outputs = self(bev, images, metas, denoising)
        losses = self.losses(outputs.tasks, truth, denoising)
        if self.reliability is not None:
            losses['loss_reliability'] = self.reliability_loss(outputs, metas)
        return losses

    def losses(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        truth: GroundTruth,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """Losses of the ``tasks`` of :meth:`forward`."""
        tasks = [TaskOutput(self.box_coder.join(task), task[CLASS_BRANCH]) for task in outputs]
        if denoising is None:
            return self.criterion(tasks, truth)
        learned = [TaskOutput(*(x[:, :, denoising.slots :] for x in task)) for task in tasks]
        place = (slice(None), denoising.sample, denoising.slot)
        noised = [TaskOutput(*(x[place] for x in task)) for task in tasks]
        return self.criterion(learned, truth, noised, denoising.targets)

    def ground_truth(self, samples: Sequence[Det3DDataSample]) -> GroundTruth:
        """The boxes of the head's classes; those labelled -1 are left out."""
        return GroundTruth.of(
            [sample.gt_instances_3d for sample in samples],
            num_classes=self.num_classes,
            like=self.reference_points.weight,
        )

    def reliability_loss(self, outputs: HeadOutput, metas: Sequence[Mapping]) -> Tensor:
        """How far the router's weights are from the health of the sensors."""
        router, tokens = outputs.router, outputs.tokens
        return self.reliability(
            router.weights,
            self._health(tokens, metas),
            windows=router.windows,
            groups=self._groups(tokens),
            present=tokens.present,
            denoising_slots=router.denoising_slots,
        )

    def _with_true_health(
        self, router: SensorWeights, tokens: Tokens, metas: Sequence[Mapping]
    ) -> SensorWeights:
        """The weights that the reliability loss asks for, in place of those that there are."""
        weights = self.reliability.oracle(
            router.weights,
            self._health(tokens, metas),
            windows=router.windows,
            groups=self._groups(tokens),
            present=tokens.present,
        )
        return router._replace(weights=weights)

    def _health(self, tokens: Tokens, metas: Sequence[Mapping]) -> Tensor:
        """(B, K), healthy share of the input of every token."""
        return token_health(
            metas,
            tokens.layout,
            bev_extent=self._bev_extent(tokens.layout),
            pad_shape=metas[0].get('pad_shape'),
            like=tokens.features,
        )

    def _bev_extent(self, layout: TokenLayout) -> tuple[float, float] | None:
        """What the BEV map spans along y and x, in spans of the range."""
        if layout.bev is None:
            return None
        x_min, y_min, _, x_max, y_max, _ = self.point_cloud_range
        cell_x, cell_y = self.voxel_grid.cell_size(layout.bev)
        rows, columns = layout.bev
        return rows * cell_y / (y_max - y_min), columns * cell_x / (x_max - x_min)

    def predict(
        self,
        bev: Tensor | None,
        images: Tensor | None,
        batch_data_samples: Sequence[Det3DDataSample],
    ) -> list[InstanceData]:
        """The best boxes of each sample; see :meth:`forward`."""
        metas = [sample.metainfo for sample in batch_data_samples]
        outputs = self(bev, images, metas).tasks
        return [self._decode(outputs, i, meta) for i, meta in enumerate(metas)]

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
        """Outputs are offsets from the reference point; give them its place in metres."""
        start = inverse_sigmoid(reference)
        unit = torch.cat([outputs['center'], outputs['height']], dim=-1) + start
        metres = unit_to_metres(unit.sigmoid(), self.point_cloud_range)
        return {**outputs, 'center': metres[..., :2], 'height': metres[..., 2:]}

    def _embed_bev(self, position: Tensor) -> Tensor:
        """(..., 2 or 3) in the unit range -> (..., C)."""
        return self.bev_embedding(sine_embedding(position, self.hidden_dim, self.wavelengths))

    def _embed_rays(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        """(..., P, 3) pixels (u, v, 1) -> (..., P, C)."""
        return self.rv_embedding(self._ray_code(pixels, img2lidar))

    def _ray_code(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        return ray_code(
            pixels,
            img2lidar,
            depth_num=self.depth_num,
            point_cloud_range=self.point_cloud_range,
        )

    def _check_inputs(self, bev: Tensor | None, images: Tensor | None) -> None:
        given = [
            name for name, value in zip(MODALITIES, (bev, images), strict=True) if value is not None
        ]
        if not given or set(given) - set(self.modalities):
            raise ValueError(
                f'the head was built for {list(self.modalities)}, but was given {given}'
            )


def _present_tokens(cameras: Cameras | None, layout: TokenLayout) -> Tensor | None:
    """(B, K), bool; the tokens of a camera are there where the camera is."""
    if cameras is None or cameras.complete:
        return None
    lidar = cameras.present.new_ones(len(cameras.present), layout.lidar_tokens)
    images = cameras.present.repeat_interleave(layout.tokens_per_camera, dim=1)
    return torch.cat([lidar, images], dim=1)


def _mlp(in_features: int, hidden_features: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, hidden_features),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_features, out_features),
    )


def _check_modalities(modalities: Sequence[str], in_channels: int | None) -> None:
    unknown = set(modalities) - set(MODALITIES)
    if unknown or not modalities:
        raise ValueError(
            f'modalities is {list(modalities)}; it must name one or both of {list(MODALITIES)}'
        )
    if 'lidar' in modalities and in_channels is None:
        raise ValueError('in_channels, the channels of the BEV map, is needed with LiDAR')


def _check_aqr(
    modalities: Sequence[str],
    *,
    windows: Mapping[str, int],
    voxel_grid: VoxelGrid | None,
    denoising: str,
    used: bool,
) -> None:
    """Options of the router; ``used`` is whether anything uses its weights."""
    if set(modalities) != set(MODALITIES):
        raise ValueError(
            f'aqr routes between {list(MODALITIES)}, but modalities is '
            f'{list(modalities)}; leave aqr out'
        )
    if set(windows) != set(MODALITIES) or min(windows.values()) < 1:
        raise ValueError(
            f'aqr.windows is {dict(windows)}; it must give {list(MODALITIES)} a number of '
            'cells from 1 on'
        )
    if voxel_grid is None:
        raise ValueError(
            'aqr needs voxel_grid to find the BEV cell of a query; CmtDetector gives it, from '
            'data_preprocessor.voxel_layer and pts_middle_encoder'
        )
    if denoising not in DENOISING_RULES:
        raise ValueError(
            f'aqr.denoising is {denoising!r}; it must be one of {list(DENOISING_RULES)}'
        )
    if not used:
        raise ValueError(
            'aqr has neither bias_generator nor feature_scaling: nothing would use its weights'
        )
