"""GridMask: black squares in a regular grid over the training images."""

from __future__ import annotations

import math

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class GridMask(nn.Module):
    """GridMask data augmentation (Chen et al., arXiv 2001.04086, 2020), as CMT applies it.

    A grid of period d, drawn per call from 2 to the image's height, has stripes of `ratio` * d
    along rows and columns. In mode 1 the stripes are kept and the squares between them turn to
    zero; at a ratio of one half that is a quarter of the image. All images of a call share one
    mask, as in the released code, so that the views of a sample cannot be told apart by it. Nothing
    happens in evaluation mode.

    Args:
        use_h: stripes along rows.
        use_w: stripes along columns.
        rotate: the grid is turned by a whole number of degrees from 0 to below this.
        offset: fill with uniform noise in [-1, 1] in place of zero.
        ratio: width of a stripe as a share of the period.
        mode: 1 keeps the stripes, 0 erases them.
        prob: probability that a call masks at all.

    Raises:
        ValueError: for arguments out of range.
    """

    def __init__(
        self,
        *,
        use_h: bool = True,
        use_w: bool = True,
        rotate: int = 1,
        offset: bool = False,
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
        if not (use_h or use_w):
            raise ValueError('GridMask without use_h and use_w has no stripes; leave it out')
        self.use_h = use_h
        self.use_w = use_w
        self.rotate = rotate
        self.offset = offset
        self.ratio = ratio
        self.mode = mode
        self.prob = prob

    def forward(self, images: Tensor) -> Tensor:
        """(..., H, W) -> the same shape, masked with probability `prob` while training."""
        if not self.training or torch.rand(()).item() >= self.prob:
            return images
        height, width = images.shape[-2:]
        kept = self._draw_mask(height, width, images.device)
        if self.offset:
            fill = torch.rand((height, width), device=images.device, dtype=images.dtype) * 2 - 1
            return torch.where(kept, images, fill)
        return images * kept

    def _draw_mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """(H, W) bool, true where the image is kept."""
        period = int(torch.randint(2, max(3, height), ()))
        stripe = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        start_v, start_u = torch.randint(period, (2,)).tolist()
        angle = math.radians(int(torch.randint(self.rotate, ())))
        v = torch.arange(height, device=device)[:, None] - height // 2
        u = torch.arange(width, device=device)[None, :] - width // 2
        along_v = math.cos(angle) * v - math.sin(angle) * u
        along_u = math.sin(angle) * v + math.cos(angle) * u
        striped = torch.zeros((height, width), dtype=torch.bool, device=device)
        if self.use_h:
            striped |= (along_v - start_v) % period < stripe
        if self.use_w:
            striped |= (along_u - start_u) % period < stripe
        return striped if self.mode == 1 else ~striped

    def extra_repr(self) -> str:
        return f'ratio={self.ratio}, mode={self.mode}, rotate={self.rotate}, prob={self.prob}'
