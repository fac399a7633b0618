"""Tokens and queries of CMT: feature maps, reference points, and the embeddings of their places.

Shapes: B batch, V cameras, Q queries (denoising queries included), K tokens, C channels.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.layers.transformer import inverse_sigmoid
from mmengine.model import BaseModule
from torch import Tensor, nn

from .aqr import TokenLayout, Tokens
from .cameras import Cameras
from .denoising import DenoisingQueries
from .geometry import (
    bev_grid,
    check_range,
    project,
    token_pixels,
    unit_to_metres,
    visible_pairs,
)
from .position_cache import PositionCache
from .precision import autocast_dtype
from .transformer import (
    CmtTransformer,
    Position,
    init_local_attention,
    position_mlp,
    ray_code,
    sine_embedding,
)
from .transformer.routing import MODALITIES


class CmtEmbeddings(BaseModule):
    """Base of the head: turns feature maps into tokens, and reference points into queries.

    The arguments are those of :class:`~projects.cmt_aqr.head.CmtHead`.

    Attributes:
        position_cache: keeps embeddings of positions from frame to frame in inference, see
            :func:`~projects.cmt_aqr.inference.fold_for_inference`; ``None`` keeps none.

    Raises:
        ValueError: unknown or no modality; LiDAR without ``in_channels``; a malformed range.
    """

    def __init__(
        self,
        *,
        point_cloud_range: Sequence[float],
        modalities: Sequence[str],
        in_channels: int | None,
        hidden_dim: int,
        num_query: int,
        depth_num: int,
        wavelengths: tuple[float, float] | None,
        init_cfg: Mapping | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(point_cloud_range)
        _check_modalities(modalities, in_channels)
        self.point_cloud_range = tuple(point_cloud_range)
        self.modalities = tuple(modalities)
        self.hidden_dim = hidden_dim
        self.depth_num = depth_num
        self.wavelengths = wavelengths
        self.position_cache: PositionCache | None = None
        if 'lidar' in modalities:
            self.shared_conv = ConvModule(
                in_channels, hidden_dim, kernel_size=3, padding=1, norm_cfg={'type': 'BN2d'}
            )
        if 'camera' in modalities:
            self.rv_embedding = position_mlp(3 * depth_num, 4 * hidden_dim, hidden_dim)
        self.bev_embedding = position_mlp(2 * hidden_dim, hidden_dim, hidden_dim)
        self.reference_points = nn.Embedding(num_query, 3)
        nn.init.uniform_(self.reference_points.weight)

    @property
    def num_query(self) -> int:
        """Learned queries."""
        return self.reference_points.num_embeddings

    def tokenize(
        self, bev: Tensor | None, images: Tensor | None, cameras: Cameras | None
    ) -> Tokens:
        """Flatten the feature maps into one sequence, LiDAR first."""
        layout, features = TokenLayout.of(bev, images), []
        if bev is not None:
            bev = self.shared_conv(bev)
            features.append(bev.flatten(2).transpose(1, 2))
        if images is not None:
            features.append(images.flatten(3).transpose(2, 3).flatten(1, 2))
        features = torch.cat(features, dim=1)
        position = self._cached(
            'tokens',
            (layout, features.shape[0], features.dtype),
            cameras,
            lambda: self._embed_tokens(layout, cameras, like=features),
        )
        complete = cameras is None or cameras.complete
        token_mask = None if complete else layout.token_mask(cameras.camera_mask)
        return Tokens(features, position, token_mask, layout)

    def _embed_tokens(self, layout: TokenLayout, cameras: Cameras | None, like: Tensor) -> Tensor:
        """(B, K, C): position embedding of every token."""
        position = []
        if layout.bev is not None:
            cells = self._embed_bev(bev_grid(*layout.bev, like=like))
            position.append(cells.expand(like.shape[0], -1, -1))
        if layout.image is not None:
            pixels = token_pixels(*layout.image, cameras.image_shape, like=cameras.lidar2img)
            pixels = pixels.expand(*cameras.camera_mask.shape, -1, -1)
            position.append(self._embed_rays(pixels, cameras.img2lidar).flatten(1, 2))
        return torch.cat(position, dim=1)

    def _cached(
        self, name: str, key: Hashable, cameras: Cameras | None, compute: Callable[[], Any]
    ) -> Any:
        """``compute()``, or its earlier value for the same cameras, if there is a cache."""
        known = cameras is None or cameras.key is not None
        if self.position_cache is None or not known:
            return compute()
        autocast = autocast_dtype(self.reference_points.weight.device.type)
        return self.position_cache(name, (key, cameras and cameras.key, autocast), compute)

    def train(self, mode: bool = True) -> 'CmtEmbeddings':
        """Clears the cache of positions, since EMA may have swapped the weights."""
        if self.position_cache is not None:
            self.position_cache.clear()
        return super().train(mode)

    def reference(self, batch_size: int, denoising: DenoisingQueries | None) -> Tensor:
        """(B, Q, 3): reference points in the unit range, those of denoising queries first."""
        learned = self.reference_points.weight.expand(batch_size, -1, -1)
        if denoising is None:
            return learned
        return torch.cat([denoising.reference, learned], dim=1)

    def embed_queries(self, reference: Tensor, cameras: Cameras | None) -> Tensor:
        """(B, Q, C): embedding of the BEV position, plus those of its rays in all cameras."""
        reference = inverse_sigmoid(reference).sigmoid()  # clamps it to the range
        embedded = self._embed_bev(reference)
        if cameras is None:
            return embedded
        points = unit_to_metres(reference, self.point_cloud_range)
        projection = project(points, cameras.lidar2img, cameras.image_shape)
        # Only pairs of a camera and a query that it sees are embedded: about one in five.
        sample, camera, query = visible_pairs(projection, cameras.camera_mask)
        rays = self._embed_rays(
            projection.pixels[sample, camera, query][:, None], cameras.img2lidar[sample, camera]
        )
        return embedded.index_put((sample, query), rays[:, 0].to(embedded), accumulate=True)

    def init_local_attention(
        self, transformer: CmtTransformer, spread: Mapping[str, float]
    ) -> None:
        """Let cross-attention start out local, by random positions of each modality."""
        positions = []
        if 'lidar' in self.modalities:
            code = sine_embedding(torch.rand(1024, 2), self.hidden_dim, self.wavelengths)
            positions.append(Position(self.bev_embedding, code, spread['lidar']))
        if 'camera' in self.modalities:
            # Random rays from the middle of the range represent those of pixels.
            rays = torch.eye(4).expand(1024, 4, 4).clone()
            rays[:, :3, 3] = unit_to_metres(torch.full((3,), 0.5), self.point_cloud_range)
            directions = F.normalize(torch.randn(1024, 1, 3), dim=-1)
            code = self._ray_code(directions, rays)[:, 0]
            positions.append(Position(self.rv_embedding, code, spread['camera']))
        split_heads = spread.get('split_heads', True)
        init_local_attention(transformer, positions, split_heads=split_heads)

    def _embed_bev(self, position: Tensor) -> Tensor:
        """(..., 2 or 3) in the unit range -> (..., C)."""
        return self.bev_embedding(sine_embedding(position, self.hidden_dim, self.wavelengths))

    def _embed_rays(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        """(..., P, 3) pixels (u, v, 1) -> (..., P, C)."""
        return self.rv_embedding(self._ray_code(pixels, img2lidar))

    def _ray_code(self, pixels: Tensor, img2lidar: Tensor) -> Tensor:
        return ray_code(
            pixels, img2lidar, depth_num=self.depth_num, point_cloud_range=self.point_cloud_range
        )

    def _check_inputs(self, bev: Tensor | None, images: Tensor | None) -> None:
        given = [n for n, x in zip(MODALITIES, (bev, images), strict=True) if x is not None]
        if not given or set(given) - set(self.modalities):
            raise ValueError(
                f'the head was built for {list(self.modalities)}, but was given {given}'
            )


def _check_modalities(modalities: Sequence[str], in_channels: int | None) -> None:
    unknown = set(modalities) - set(MODALITIES)
    if unknown or not modalities:
        raise ValueError(
            f'modalities is {list(modalities)}; it must name one or both of {list(MODALITIES)}'
        )
    if 'lidar' in modalities and in_channels is None:
        raise ValueError('in_channels, the channels of the BEV map, is needed with LiDAR')
