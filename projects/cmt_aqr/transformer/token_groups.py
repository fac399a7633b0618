"""The groups of tokens that a router weighs: LiDAR and camera, or LiDAR and each camera.

Shapes: B batch, K tokens, M token groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TokenGroups(NamedTuple):
    """Groups of adjacent tokens.

    The sizes are integers on the host, known from the shapes of the feature maps: attention by
    group splits the sequence without waiting for the device.
    """

    sizes: tuple[int, ...]
    """M: number of tokens of each group, in the order of the sequence; 0 for an absent sensor"""
    index: Tensor
    """(K,): group of every token"""

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device | str = 'cpu') -> TokenGroups:
        """Groups of the given sizes.

        The index is filled on the device: a copy from the host would wait for it.
        """
        parts = [
            torch.full((size,), group, dtype=torch.long, device=device)
            for group, size in enumerate(sizes)
        ]
        return cls(tuple(sizes), torch.cat(parts))

    @property
    def num_tokens(self) -> int:
        """K."""
        return sum(self.sizes)

    def one_hot(self, like: Tensor) -> Tensor:
        """(K, M): one-hot code of the group of every token, with the dtype of ``like``.

        Unlike :func:`torch.nn.functional.one_hot` it does not read the largest index.
        """
        groups = torch.arange(len(self.sizes), device=self.index.device)
        return (self.index[:, None] == groups).to(like)

    def valid(self, token_mask: Tensor | None) -> Tensor:
        """(B or 1, 1, 1, M), bool: groups of which a sample has a token.

        Args:
            token_mask: (B, K), bool, True for the tokens that a sample has; ``None`` for all.
        """
        if token_mask is None:
            token_mask = torch.ones_like(self.index, dtype=torch.bool)[None]
        valid = [own.any(dim=1) for own in token_mask.split(self.sizes, dim=1)]
        return torch.stack(valid, dim=-1)[:, None, None]
