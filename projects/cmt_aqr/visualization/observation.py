"""One frame with its inputs, the router's weights as maps, and the detected boxes.

Shapes: V cameras, Q queries, h and w of the fine maps.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from ..aqr import TokenLayout, bev_windows, camera_windows, render_weights
from ..cameras import batch_cameras
from ..detector import CmtDetector
from ..geometry import project, unit_to_metres
from ..head import CmtHead
from .frame_view import predictions_of
from .scene_boxes import SceneBox

# Cells along the side of the BEV map and the width of an image: finer than the tokens.
CELLS = 160
# Standard deviation of a query's Gaussian in these cells, so that neighbours just touch.
BEV_SIGMA, IMAGE_SIGMA = 4, 8
# A window extends this many standard deviations to each side.
REACH = 3


class WeightMap(NamedTuple):
    """Fine map of the weights of one sensor."""

    mean: np.ndarray
    """(h, w) for LiDAR, rows along y and columns along x; (V, h, w) for cameras"""
    coverage: np.ndarray
    """same shape; 1 at an isolated query, 0 far from every query"""


class Observation(NamedTuple):
    """Inputs and outputs of the detector for one frame."""

    points: np.ndarray
    """(N, 3 or more), LiDAR frame, metres"""
    images: np.ndarray
    """(V, H, W, 3) uint8, RGB"""
    cameras: Sequence[str]
    """name of each camera"""
    lidar2img: np.ndarray
    """(V, 4, 4), to the pixels of the images"""
    boxes: Sequence[SceneBox]
    """detected boxes, LiDAR frame"""
    lidar: WeightMap
    """weights of LiDAR, over the whole range"""
    camera: WeightMap
    """weights of cameras, over each image"""
    mean_weights: tuple[float, float]
    """of LiDAR and of cameras, over all queries"""
    point_cloud_range: Sequence[float]
    """metres"""


@torch.no_grad()
def observe(
    model: CmtDetector,
    sample: Mapping,
    *,
    cameras: Sequence[str],
    classes: Sequence[str],
    score_threshold: float,
) -> Observation:
    """Run the detector on one sample.

    Args:
        model: with a router, in evaluation mode.
        sample: of the test pipeline: ``inputs`` with ``points`` and ``img`` (V, 3, H, W) in BGR,
            and ``data_samples``.
        cameras: name of each camera.
        classes: class names by label.
        score_threshold: lowest score of a box to be drawn.
    """
    outputs = []
    handle = model.pts_bbox_head.router.register_forward_hook(
        lambda _, inputs, output: outputs.append(output)
    )
    try:
        (result,) = model.test_step(pseudo_collate([sample]))
    finally:
        handle.remove()
    weights = outputs[0].weights.float()
    images = sample['inputs']['img']
    lidar, camera = _maps(model.pts_bbox_head, weights, result.metainfo, images)
    return Observation(
        points=sample['inputs']['points'].numpy(),
        images=images.flip(1).permute(0, 2, 3, 1).byte().numpy(),
        cameras=cameras,
        lidar2img=np.asarray(result.metainfo['lidar2img']),
        boxes=predictions_of(result, classes, score_threshold),
        lidar=lidar,
        camera=camera,
        mean_weights=(weights[..., 0].mean().item(), weights[..., 1:].mean().item()),
        point_cloud_range=model.pts_bbox_head.point_cloud_range,
    )


def _maps(
    head: CmtHead, weights: torch.Tensor, meta: Mapping, images: torch.Tensor
) -> tuple[WeightMap, WeightMap]:
    """Weights (1, Q, M) rendered at the places of the queries."""
    count, _, height, width = images.shape
    layout = TokenLayout((CELLS, CELLS), (round(CELLS * height / width), CELLS), count)
    cameras = batch_cameras([meta], like=weights.new_empty(1, count))
    low, high = head.point_cloud_range[:2], head.point_cloud_range[3:5]
    points = unit_to_metres(head.reference(1, None), head.point_cloud_range)
    bev = bev_windows(
        points,
        layout,
        size=_size(BEV_SIGMA),
        point_cloud_range=head.point_cloud_range,
        cell_size=tuple((b - a) / CELLS for a, b in zip(low, high, strict=True)),
    )
    # The map covers the image without its padding, which is on the right and below.
    projection = project(points, cameras.lidar2img, (height, width))
    seen = camera_windows(
        projection,
        cameras.camera_mask,
        layout,
        size=_size(IMAGE_SIGMA),
        image_shape=(height, width),
    )
    maps = [
        render_weights(weights, [part], layout, sigma=sigma / _size(sigma))
        for part, sigma in ((bev, BEV_SIGMA), (seen, IMAGE_SIGMA))
    ]
    return tuple(
        WeightMap(*(layout.maps(values)[i][0].cpu().numpy() for values in part))
        for i, part in enumerate(maps)
    )


def _size(sigma: int) -> int:
    """Cells along the side of a window, an odd number."""
    return 2 * REACH * sigma + 1
