"""The tokens of a batch, and where those of each sensor lie in the sequence.

Shapes: B batch, V cameras, K tokens, C channels, M token groups.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..transformer.token_groups import TokenGroups


class TokenLayout(NamedTuple):
    """Order of the tokens: the BEV map row by row, then the map of each camera row by row.

    Every size is read from the features.
    """

    bev: tuple[int, int] | None
    """height and width of the BEV map, cells; ``None`` without LiDAR"""
    image: tuple[int, int] | None
    """height and width of the map of one camera, cells; ``None`` without cameras"""
    num_cameras: int
    """V"""

    @classmethod
    def of(cls, bev: Tensor | None, images: Tensor | None) -> TokenLayout:
        """Layout of the tokens of (B, C, height, width) and (B, V, C, height, width)."""
        return cls(
            # Sizes are tensors while torch.jit.trace runs, for an export; only B may vary there.
            bev=None if bev is None else tuple(map(int, bev.shape[-2:])),
            image=None if images is None else tuple(map(int, images.shape[-2:])),
            num_cameras=0 if images is None else int(images.shape[1]),
        )

    @property
    def lidar_tokens(self) -> int:
        """Number of tokens of the BEV map; those of the cameras come after them."""
        return 0 if self.bev is None else self.bev[0] * self.bev[1]

    @property
    def tokens_per_camera(self) -> int:
        """Number of tokens of one camera."""
        return 0 if self.image is None else self.image[0] * self.image[1]

    def maps(self, tokens: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Split (B, K) numbers into maps (B, height, width) and (B, V, height, width).

        A map is ``None`` without its sensor.
        """
        lidar, camera = tokens.split([self.lidar_tokens, tokens.shape[1] - self.lidar_tokens], 1)
        return (
            None if self.bev is None else lidar.unflatten(1, self.bev),
            None if self.image is None else camera.unflatten(1, (self.num_cameras, *self.image)),
        )

    def token_mask(self, camera_mask: Tensor) -> Tensor:
        """(B, K), bool, True for LiDAR and for the cameras that a sample has by (B, V)."""
        lidar = camera_mask.new_ones(len(camera_mask), self.lidar_tokens)
        images = camera_mask.repeat_interleave(self.tokens_per_camera, dim=1)
        return torch.cat([lidar, images], dim=1)

    def num_groups(self, grouping: str) -> int:
        """M: LiDAR and all cameras (``modality``), or LiDAR and each camera (``camera``)."""
        return 1 + (self.num_cameras if grouping == 'camera' else 1)

    def groups(self, grouping: str, device: torch.device) -> TokenGroups:
        """Returns the M token groups, LiDAR first; the group of an absent sensor is empty."""
        cameras = [self.tokens_per_camera] * self.num_cameras
        if grouping == 'modality':
            cameras = [sum(cameras)]
        return TokenGroups.of([self.lidar_tokens, *cameras], device)


class Tokens(NamedTuple):
    """The tokens that queries attend to."""

    features: Tensor
    """(B, K, C), LiDAR first"""
    position: Tensor
    """(B, K, C), position embedding"""
    token_mask: Tensor | None
    """(B, K), bool, True for the tokens that a sample has; ``None`` for all"""
    layout: TokenLayout
    """where the tokens of each sensor lie"""

    def by_modality(self) -> dict[str, Tokens]:
        """The tokens of LiDAR alone and of the cameras alone; views of the same memory."""
        lidar = self.layout.lidar_tokens
        parts = {
            'lidar': (slice(0, lidar), self.layout._replace(image=None, num_cameras=0)),
            'camera': (slice(lidar, None), self.layout._replace(bev=None)),
        }
        return {
            name: Tokens(
                self.features[:, part],
                self.position[:, part],
                None if self.token_mask is None else self.token_mask[:, part],
                layout,
            )
            for name, (part, layout) in parts.items()
        }
