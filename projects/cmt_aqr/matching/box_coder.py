"""Conversion between boxes and the ten numbers that the network regresses.

A box is (x, y, z, dx, dy, dz, yaw, vx, vy) with z at the centre of gravity; its code is
(cx, cy, log dx, log dy, cz, log dz, sin, cos, vx, vy), in metres and metres per second.
"""

from collections.abc import Sequence

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from ..transfer import to_device

LAYOUTS = ('named', 'released')
# Avoids the logarithm of zero; one millimetre is smaller than any annotation.
_MIN_SIZE = 1e-3


def encode_boxes(boxes: Tensor) -> Tensor:
    """(..., 9) boxes -> (..., 10) codes."""
    x, y, z, *_, yaw, vx, vy = boxes.unbind(-1)
    log_dx, log_dy, log_dz = boxes[..., 3:6].clamp(min=_MIN_SIZE).log().unbind(-1)
    code = (x, y, log_dx, log_dy, z, log_dz, yaw.sin(), yaw.cos(), vx, vy)
    return torch.stack(code, dim=-1)


def decode_boxes(code: Tensor) -> Tensor:
    """(..., 10) codes -> (..., 9) boxes."""
    x, y, log_dx, log_dy, z, log_dz, sin, cos, vx, vy = code.unbind(-1)
    yaw = torch.atan2(sin, cos)
    return torch.stack((x, y, z, log_dx.exp(), log_dy.exp(), log_dz.exp(), yaw, vx, vy), dim=-1)


@TASK_UTILS.register_module()
class BoxCoder:
    """Joins the outputs of a task head into codes, and selects and decodes the best boxes.

    Args:
        post_center_range: range of the box centres, metres; boxes outside are removed. By default
            the detector gives its range, 5 m wider to every side.
        max_num: maximum number of boxes per sample.
        layout: positions of the outputs in the code. With ``named``, outputs mean what they are
            called: ``height`` is z and ``dim`` the three log sizes. With ``released``, center,
            height, dim, rot and vel are joined in this order, so that ``height`` acts as log dx and
            ``dim`` as log dy, z and log dz: the public weights were trained that way.
        score_threshold: minimum score of a box, exclusive.

    Raises:
        ValueError: unknown layout, or ``max_num`` below 1.
    """

    def __init__(
        self,
        *,
        post_center_range: Sequence[float],
        max_num: int = 300,
        layout: str = 'named',
        score_threshold: float | None = None,
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f'layout is {layout!r}; it must be one of {LAYOUTS}')
        if max_num < 1:
            raise ValueError(f'max_num is {max_num}; it must be 1 or greater')
        self.post_center_range = tuple(post_center_range)
        self.max_num = max_num
        self.layout = layout
        self.score_threshold = score_threshold

    def join(self, outputs: dict[str, Tensor]) -> Tensor:
        """Outputs of one task head, (..., n) each -> codes (..., 10)."""
        center, height, dim = outputs['center'], outputs['height'], outputs['dim']
        if self.layout == 'released':
            parts = [center, height, dim]
        else:
            parts = [center, dim[..., :2], height, dim[..., 2:]]
        return torch.cat([*parts, outputs['rot'], outputs['vel']], dim=-1)

    def decode(self, codes: list[Tensor], logits: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes of one sample over all tasks.

        Args:
            codes: one (Q, 10) for each task.
            logits: one (Q, classes of the task) for each task.

        Returns:
            Boxes (n, 9), scores (n,) and labels (n,), best first, with n at most ``max_num``.
        """
        classes = [task.shape[-1] for task in logits]
        task_of_class = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(classes))
        task_of_class = to_device(task_of_class, logits[0], torch.long)
        all_scores = torch.cat(logits, dim=-1).sigmoid()
        scores, index = all_scores.flatten().topk(min(self.max_num, all_scores.numel()))
        query, labels = index // sum(classes), index % sum(classes)
        boxes = decode_boxes(torch.stack(codes)[task_of_class[labels], query])
        keep = self._inside(boxes)
        if self.score_threshold is not None:
            keep &= scores > self.score_threshold
        return boxes[keep], scores[keep], labels[keep]

    def _inside(self, boxes: Tensor) -> Tensor:
        low = to_device(self.post_center_range[:3], boxes)
        high = to_device(self.post_center_range[3:], boxes)
        return ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(dim=1)
