"""GridMask augmentation: a regular grid of black squares on the training images."""

from __future__ import annotations

import math

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class GridMask(nn.Module):
    """GridMask data augmentation (Chen et al., arXiv 2001.04086, 2020), as CMT applies it.

    Each call draws a grid of period d, from 2 to the image's height less one, with stripes of width
    `ratio` * d along rows and columns. In mode 1 the squares between the stripes are set to zero;
    at a ratio of 0.5 they cover a quarter of the image. As in the released code, all images of a
    call share one mask, so that it does not distinguish the views of a sample. Images are unchanged
    in evaluation mode.

    Args:
        rotate: upper limit of the grid's rotation, exclusive, in whole degrees.
        ratio: width of a stripe as a share of the period.
        mode: 1 keeps the stripes, 0 erases them.
        prob: probability that a call masks its images.

    Raises:
        ValueError: argument out of range.
    """

    def __init__(
        self,
        *,
        rotate: int = 1,
        ratio: float = 0.5,
        mode: int = 1,
        prob: float = 0.7,
    ) -> None:
        super().__init__()
        if not (0 <= prob <= 1 and 0 < ratio < 1 and mode in (0, 1) and rotate >= 1):
            raise ValueError(
                f'GridMask needs 0 <= prob <= 1, 0 < ratio < 1, mode 0 or 1 and rotate >= 1, not '
                f'prob={prob}, ratio={ratio}, mode={mode}, rotate={rotate}'
            )
        self.rotate = rotate
        self.ratio = ratio
        self.mode = mode
        self.prob = prob

    def forward(self, images: Tensor) -> Tensor:
        """(..., H, W) -> the same shape, masked with probability `prob` while training."""
        if not self.training or torch.rand(()).item() >= self.prob:
            return images
        return images * self._draw_mask(*images.shape[-2:], images.device)

    def _draw_mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """(H, W) bool, True where the image is kept."""
        period = int(torch.randint(2, max(3, height), ()))
        stripe = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        start_v, start_u = torch.randint(period, (2,)).tolist()
        angle = math.radians(int(torch.randint(self.rotate, ())))
        v = torch.arange(height, device=device)[:, None] - height // 2
        u = torch.arange(width, device=device)[None, :] - width // 2
        along_v = math.cos(angle) * v - math.sin(angle) * u
        along_u = math.sin(angle) * v + math.cos(angle) * u
        rows = (along_v - start_v) % period < stripe
        columns = (along_u - start_u) % period < stripe
        striped = rows | columns
        return striped if self.mode == 1 else ~striped

    def extra_repr(self) -> str:
        return f'ratio={self.ratio}, mode={self.mode}, rotate={self.rotate}, prob={self.prob}'
