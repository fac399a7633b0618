"""LiDAR points without the copies that MMDetection3D's class makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import LiDARPoints
from torch import Tensor


class LeanLiDARPoints(LiDARPoints):
    """mmdet3d's `LiDARPoints` with less work for clouds of several sweeps.

    Points, random numbers and results are the same. mmdet3d copies all rows again for every new
    object, and selects rows value by value; here a new object shares the tensor or array that it is
    made from, and whole rows are selected.

    Args:
        tensor: (N, ``points_dim``) float32, not copied.
        points_dim, attribute_dims: as for `LiDARPoints`.
    """

    def __init__(
        self,
        tensor: Tensor | np.ndarray | Sequence[Sequence[float]],
        points_dim: int = 3,
        attribute_dims: dict | None = None,
    ) -> None:
        super().__init__(torch.empty(0, points_dim), points_dim, attribute_dims)
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        self.tensor = tensor if len(tensor) else tensor.reshape(-1, points_dim)
        if self.tensor.dim() != 2 or self.tensor.shape[1] != points_dim:
            raise ValueError(f'points are {tuple(tensor.shape)}, not (N, {points_dim})')

    def __getitem__(self, item: Any) -> LeanLiDARPoints:
        """Points by a mask (N,) or indices (M,), or as for `LiDARPoints`."""
        if not isinstance(item, Tensor | np.ndarray):
            return super().__getitem__(item)
        item = torch.as_tensor(item)
        index = item.nonzero()[:, 0] if item.dtype == torch.bool else item.long()
        return type(self)(self.tensor.index_select(0, index), self.points_dim, self.attribute_dims)

    def shuffle(self) -> Tensor:
        """Shuffles the points; returns the order (N,)."""
        order = torch.randperm(len(self), device=self.tensor.device)
        self.tensor = self.tensor.index_select(0, order)
        return order
