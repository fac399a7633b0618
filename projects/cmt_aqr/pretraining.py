"""Pretraining of the image branch on dense labels, before CMT is trained on both sensors.

A CMT trained from scratch on both sensors does not learn to use its cameras, since LiDAR is the
easier way to every box. CMT itself starts from the image weights of a detector; this pretraining
gives such weights in minutes. For each image token the branch learns the class of the nearest
ground-truth box that a ray through the token hits, and its depth.

Shapes: B samples, V cameras, T tokens of one image, R rays of one token, N boxes of one sample,
C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import BaseInstance3DBoxes, Det3DDataSample
from torch import Tensor, nn
from torch.nn import functional

from .auxiliary_losses import take_auxiliary_losses
from .freezing import build_freezable
from .geometry import token_pixels
from .required_hooks import RequiresHooks
from .transfer import to_device

IGNORED = -1


class TokenTargets(NamedTuple):
    """Labels of the tokens of some cameras; all of shape (..., T)."""

    labels: Tensor  # class, num_classes for background, IGNORED for cameras that do not exist
    log_depths: Tensor  # log of the depth in metres, 0 for background


def token_rays(
    map_size: tuple[int, int], image_shape: tuple[int, int], per_side: int, like: Tensor
) -> Tensor:
    """(T, R, 3): pixels (u, v, 1) of R = per_side ** 2 rays on a regular grid in each token's cell.

    Args:
        map_size: height and width of the token map; tokens are counted row by row.
        image_shape: height and width of the padded image, pixels.
        per_side: rays along each side of a cell; a single ray is at its centre.
        like: tensor with the device and the type of the result.
    """
    height, width = map_size
    rows, columns = height * per_side, width * per_side
    corners = token_pixels(rows, columns, image_shape, like)
    half_cell = to_device([image_shape[1] / columns / 2, image_shape[0] / rows / 2, 0], like)
    rays = (corners + half_cell).reshape(height, per_side, width, per_side, 3)
    return rays.transpose(1, 2).reshape(height * width, per_side**2, 3)


def ray_box_depths(rays: Tensor, img2lidar: Tensor, boxes: BaseInstance3DBoxes) -> Tensor:
    """Depth at which rays enter boxes (slab method, Kay and Kajiya 1986).

    A pixel (u, v, 1) at depth d is the point d * img2lidar[:3, :3] @ (u, v, 1) + camera position,
    so the parameter along the ray is the depth.

    Args:
        rays: (P, 3), pixels (u, v, 1).
        img2lidar: (V, 4, 4), inverse of ``lidar2img``.
        boxes: N boxes in the LiDAR frame.

    Returns:
        (V, P, N) metres along the optical axis; infinite where a box is missed, lies behind the
        camera, or contains it.
    """
    centres, half = boxes.gravity_center.to(rays), boxes.dims.to(rays) / 2
    origins = img2lidar[:, None, :3, 3] - centres  # (V, N, 3)
    directions = torch.einsum('vij,pj->vpi', img2lidar[:, :3, :3], rays)
    origins = _unturn(origins, boxes.yaw.to(rays))[:, None]  # (V, 1, N, 3)
    directions = _unturn(directions[:, :, None], boxes.yaw.to(rays))  # (V, P, N, 3)
    # A ray along a face would divide zero by zero.
    directions = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    first, second = (-half - origins) / directions, (half - origins) / directions
    entry = torch.minimum(first, second).amax(dim=-1)
    leave = torch.maximum(first, second).amin(dim=-1)
    return torch.where((entry <= leave) & (entry > 0), entry, torch.inf)


def _unturn(vectors: Tensor, yaw: Tensor) -> Tensor:
    """(..., N or 1, 3) in the LiDAR frame -> (..., N, 3) in the frames of N boxes with `yaw`."""
    x, y, z = torch.broadcast_tensors(*vectors.unbind(-1), yaw)[:3]
    cos, sin = yaw.cos(), yaw.sin()
    return torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1)


def token_targets(
    *,
    rays: Tensor,
    lidar2img: Tensor,
    boxes: BaseInstance3DBoxes,
    labels: Tensor,
    num_classes: int,
) -> TokenTargets:
    """Class and log depth of the nearest box hit by any ray of each token.

    Args:
        rays: (T, R, 3), from `token_rays`.
        lidar2img: (V, 4, 4).
        boxes: N boxes in the LiDAR frame; N may be 0.
        labels: (N,); boxes with a label outside of the classes are ignored.
        num_classes: label of the background.

    Returns:
        Targets of shape (V, T).
    """
    shape = (len(lidar2img), len(rays))
    if not len(labels):
        return TokenTargets(labels.new_full(shape, num_classes), rays.new_zeros(shape))
    known = (labels >= 0) & (labels < num_classes)
    # `inv` would wait for the device to check whether a matrix is singular.
    img2lidar = torch.linalg.inv_ex(lidar2img.double()).inverse.to(rays)
    depths = ray_box_depths(rays.flatten(0, 1), img2lidar, boxes)
    depths = torch.where(known, depths, torch.inf).unflatten(1, rays.shape[:2]).amin(dim=2)
    nearest, index = depths.min(dim=-1)
    hit = nearest.isfinite()
    return TokenTargets(
        torch.where(hit, labels[index], num_classes),
        torch.where(hit, nearest, torch.ones_like(nearest)).log(),
    )


@MODELS.register_module()
class ImageTokenPretrainer(RequiresHooks, Base3DDetector):
    """CMT's image backbone and neck with a small head for the class and depth of each token.

    State-dict names are CMT's (``img_backbone``, ``img_neck``), so that CMT loads the result with
    ``load_from``, without the ``token_head``. Data, transforms and preprocessor are CMT's. It
    predicts no boxes: train it without a validation loop; the log has its accuracy.

    Args:
        img_backbone: config of the backbone.
        img_neck: config of the neck; the tokens are the cells of its first map.
        num_classes: number of classes.
        rays_per_side: rays along each side of a token's cell. One ray goes through its centre;
            three also hit cones and poles narrower than a cell.
        background_weight: weight of the classification loss of the background.
        depth_weight: weight of the depth loss.
        grid_mask: config of `GridMask`, or None.
        data_preprocessor: config of the data preprocessor.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: ``rays_per_side`` or ``num_classes`` is below 1.
    """

    def __init__(
        self,
        *,
        img_backbone: Mapping,
        img_neck: Mapping,
        num_classes: int,
        rays_per_side: int = 1,
        background_weight: float = 1.0,
        depth_weight: float = 1.0,
        grid_mask: Mapping | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if rays_per_side < 1 or num_classes < 1:
            raise ValueError(f'rays_per_side={rays_per_side}, num_classes={num_classes}: below 1')
        self.num_classes = num_classes
        self.rays_per_side = rays_per_side
        self.background_weight = background_weight
        self.depth_weight = depth_weight
        self.img_backbone = build_freezable(img_backbone, MODELS, name='img_backbone')
        self.img_neck = build_freezable(img_neck, MODELS, name='img_neck')
        self.grid_mask = grid_mask and MODELS.build(grid_mask)
        channels = self.img_neck.out_channels
        self.token_head = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_classes + 2, kernel_size=1),  # classes, background, log depth
        )

    def extract_feat(self, batch_inputs_dict: Mapping) -> Tensor:
        """``imgs`` (B, V, 3, H, W) -> the neck's first map (B, V, C, h, w).

        Raises:
            ValueError: the batch has no images.
        """
        images = batch_inputs_dict.get('imgs')
        if images is None:
            raise ValueError('the batch of ImageTokenPretrainer has no images')
        flat = images.flatten(0, 1)
        if self.grid_mask is not None:
            flat = self.grid_mask(flat)
        return self.img_neck(self.img_backbone(flat))[0].unflatten(0, images.shape[:2])

    def _forward(
        self, batch_inputs_dict: Mapping, batch_data_samples: Sequence[Det3DDataSample] = ()
    ) -> tuple[Tensor, Tensor]:
        """Class logits (B, V, T, num_classes + 1) and log depths (B, V, T), tokens row by row."""
        return self._read(self.extract_feat(batch_inputs_dict))

    def _read(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        out = self.token_head(maps.flatten(0, 1)).flatten(2).transpose(1, 2)
        out = out.unflatten(0, maps.shape[:2]).float()
        return out[..., :-1], out[..., -1]

    def loss(
        self, batch_inputs_dict: Mapping, batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """Losses and logged accuracies over all tokens of the batch.

        Cross-entropy is averaged over tokens with a box and over background tokens separately,
        since nine tokens in ten are background; the loss of the depth is L1 on its logarithm.

        Returns:
            ``loss_token_box``, ``loss_token_background``, ``loss_token_depth``; ``box_accuracy``,
            ``background_accuracy`` (0 if the batch has no such token), ``log_depth_error``; and
            auxiliary losses of backbone and neck.
        """
        maps = self.extract_feat(batch_inputs_dict)
        image_shape = tuple(batch_inputs_dict['imgs'].shape[-2:])
        targets = self._targets(batch_data_samples, maps, image_shape)
        losses = self._losses(*self._read(maps), targets)
        return {**losses, **take_auxiliary_losses(self)}

    def predict(self, *args, **kwargs) -> None:
        """Not available.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            'ImageTokenPretrainer predicts no boxes: set val_cfg, val_dataloader and val_evaluator '
            'to None and read box_accuracy and log_depth_error in the training log'
        )

    @torch.no_grad()
    def _targets(
        self, samples: Sequence[Det3DDataSample], maps: Tensor, image_shape: tuple[int, int]
    ) -> TokenTargets:
        """Targets (B, V, T); cameras beyond a sample's ``lidar2img`` are ignored."""
        batch, views, _, height, width = maps.shape
        shape = (batch, views, height * width)
        labels = torch.full(shape, IGNORED, device=maps.device)
        log_depths = torch.zeros(shape, device=maps.device)
        like = log_depths
        rays = token_rays((height, width), image_shape, self.rays_per_side, like)
        for i, sample in enumerate(samples):
            lidar2img = torch.as_tensor(np.asarray(sample.metainfo['lidar2img']))
            if not len(lidar2img):
                continue
            truth = sample.gt_instances_3d
            found = token_targets(
                rays=rays,
                lidar2img=lidar2img.to(like.device, non_blocking=True),
                boxes=truth.bboxes_3d.to(like.device),
                labels=truth.labels_3d.to(like.device),
                num_classes=self.num_classes,
            )
            labels[i, : len(lidar2img)] = found.labels
            log_depths[i, : len(lidar2img)] = found.log_depths
        return TokenTargets(labels, log_depths)

    def _losses(
        self, logits: Tensor, log_depths: Tensor, targets: TokenTargets
    ) -> dict[str, Tensor]:
        background = targets.labels == self.num_classes
        box = ~background & (targets.labels != IGNORED)
        entropy = functional.cross_entropy(
            logits.flatten(0, -2),
            targets.labels.flatten(),
            ignore_index=IGNORED,
            reduction='none',
        ).view_as(targets.labels)
        depth_error = (log_depths - targets.log_depths).abs()
        correct = (logits.argmax(dim=-1) == targets.labels).float()
        return {
            'loss_token_box': _mean_over(entropy, box),
            'loss_token_background': self.background_weight * _mean_over(entropy, background),
            'loss_token_depth': self.depth_weight * _mean_over(depth_error, box),
            'box_accuracy': _mean_over(correct, box),
            'background_accuracy': _mean_over(correct, background),
            'log_depth_error': _mean_over(depth_error.detach(), box),
        }


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the masked values; 0, still in the graph, if the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
