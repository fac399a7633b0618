"""Where the tokens of each sensor lie in the sequence; every size is read from the features.

Shapes: B batch, V cameras, K tokens, C channels, M token groups.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..transformer.token_groups import TokenGroups

GROUPINGS = ('modality', 'camera')


class TokenLayout(NamedTuple):
    """The tokens of a batch: the BEV map row by row, then the map of each camera row by row."""

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
            bev=None if bev is None else tuple(bev.shape[-2:]),
            image=None if images is None else tuple(images.shape[-2:]),
            num_cameras=0 if images is None else images.shape[1],
        )

    @property
    def lidar_tokens(self) -> int:
        """Tokens of the BEV map; those of the cameras come after them."""
        return 0 if self.bev is None else self.bev[0] * self.bev[1]

    @property
    def tokens_per_camera(self) -> int:
        """Tokens of one camera."""
        return 0 if self.image is None else self.image[0] * self.image[1]

    def maps(self, tokens: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """One number for each token (B, K) -> (B, height, width) and (B, V, height, width).

        Either is ``None`` where its sensor is missing.
        """
        lidar, camera = tokens.split([self.lidar_tokens, tokens.shape[1] - self.lidar_tokens], 1)
        return (
            None if self.bev is None else lidar.unflatten(1, self.bev),
            None if self.image is None else camera.unflatten(1, (self.num_cameras, *self.image)),
        )

    def num_groups(self, grouping: str) -> int:
        """M: LiDAR and camera (``modality``), or LiDAR and each camera (``camera``)."""
        return 1 + (self.num_cameras if grouping == 'camera' else 1)

    def groups(self, grouping: str, device: torch.device) -> TokenGroups:
        """The M groups, LiDAR first; an absent sensor is a group without tokens."""
        cameras = [self.tokens_per_camera] * self.num_cameras
        if grouping == 'modality':
            cameras = [sum(cameras)]
        return TokenGroups.of([self.lidar_tokens, *cameras], device)


def check_grouping(grouping: str) -> None:
    """Raise ``ValueError`` unless it is one of :data:`GROUPINGS`."""
    if grouping not in GROUPINGS:
        raise ValueError(f'groups is {grouping!r}; it must be one of {list(GROUPINGS)}')
