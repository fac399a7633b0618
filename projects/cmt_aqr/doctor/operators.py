"""Checks of the compiled operators of mmcv that this project uses, all of them on the CPU.

Data loading uses points in boxes and overlaps of boxes. The model uses no operator of mmcv.
"""

import numpy as np
import torch

from .result import Comparison, Result, rounding, row_error

# About ten operations for a corner of a box, on values up to twenty times its size.
ALLOWED = 200 * rounding(torch.float32)


def check_points_in_boxes(device: torch.device) -> Result:
    """Check ``points_in_boxes_cpu`` against a rotation into each box, except near surfaces."""
    from mmcv.ops import points_in_boxes_cpu

    random = np.random.default_rng(0)
    points, boxes = random.uniform(-10, 10, (2000, 3)), _random_boxes(random, 20)
    found = points_in_boxes_cpu(
        torch.from_numpy(points).float()[None], torch.from_numpy(boxes).float()[None]
    )[0].numpy()
    wrong = 0
    for index, (x, y, z, *size, yaw) in enumerate(boxes):
        offset = points - [x, y, z + size[2] / 2]  # boxes have their origin at the bottom
        along = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        across = offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)
        depth = np.array(size) / 2 - np.abs(np.stack([along, across, offset[:, 2]], axis=1))
        depth = depth.min(axis=1)  # below 0 outside
        wrong += int(((found[:, index] > 0) != (depth > 0))[np.abs(depth) > 1e-4].sum())
    what = f'{len(points)} points in {len(boxes)} boxes, {int((found > 0).sum())} inside'
    return Result(what=what, comparisons=[Comparison('points on the wrong side', wrong, 0)])


def check_box_iou(device: torch.device) -> Result:
    """Check ``box_iou_rotated`` against shapely's polygons."""
    from mmcv.ops import box_iou_rotated
    from shapely import affinity
    from shapely.geometry import box

    boxes = _random_boxes(np.random.default_rng(1), 24)[:, [0, 1, 3, 4, 6]] * [0.3, 0.3, 1, 1, 1]
    given = torch.from_numpy(boxes).float()
    found = box_iou_rotated(given[:12], given[12:])
    polygons = [
        affinity.translate(
            affinity.rotate(box(-w / 2, -h / 2, w / 2, h / 2), yaw, use_radians=True), x, y
        )
        for x, y, w, h, yaw in given.double().tolist()
    ]
    expected = torch.tensor(
        [[a.intersection(b).area / a.union(b).area for b in polygons[12:]] for a in polygons[:12]]
    )
    error = row_error(found[..., None], expected[..., None])
    what = f'{found.numel()} pairs of boxes, {int((expected > 0).sum())} overlap'
    return Result(what=what, comparisons=[Comparison('IoU', error, ALLOWED)])


def _random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """(count, 7): x, y, z of the bottom centre, length, width, height, yaw."""
    centre = random.uniform(-8, 8, (count, 3))
    size = random.uniform(1, 6, (count, 3))
    return np.concatenate([centre, size, random.uniform(-3, 3, (count, 1))], axis=1)
