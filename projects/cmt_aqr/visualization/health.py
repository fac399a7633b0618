"""A picture of the reported health of each sensor, for several conditions of one frame.

Each condition has a column: its cameras in the order of their ring, and the scene from above, each
with the health of the sensor in its label. Reported damage is tinted red, more opaque the less
health is left.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement

from ..aqr.health import fit_map
from ..detector import CmtDetector
from ..health import Health
from .drawing import add_label, draw_from_above, draw_lidar_boxes_in_image
from .failures import DAMAGE, damage_colours
from .frame import FROM_ABOVE
from .frame_view import predictions_of
from .scene_boxes import SceneBox
from .style import FAINT, TEXT
from .weights import draw_classes, layout_columns


class HealthView(NamedTuple):
    """Inputs, boxes and reported health of one frame."""

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
    health: Health
    """of NumPy arrays, for this frame alone"""
    point_cloud_range: Sequence[float]
    """metres"""


@torch.no_grad()
def view_health(
    model: CmtDetector,
    sample: Mapping,
    *,
    cameras: Sequence[str],
    classes: Sequence[str],
    score_threshold: float,
) -> HealthView:
    """Run the detector on one sample.

    Args:
        model: with a health monitor, in evaluation mode.
        sample: of the test pipeline: ``inputs`` with ``points`` and ``img`` (V, 3, H, W) in BGR,
            and ``data_samples``.
        cameras: name of each camera.
        classes: class names by label.
        score_threshold: lowest score of a box to be drawn.
    """
    (result,) = model.test_step(pseudo_collate([sample]))
    images = sample['inputs']['img']
    report = result.pred_health
    return HealthView(
        points=sample['inputs']['points'].numpy(),
        images=images.flip(1).permute(0, 2, 3, 1).byte().numpy(),
        cameras=cameras,
        lidar2img=np.asarray(result.metainfo['lidar2img']),
        boxes=predictions_of(result, classes, score_threshold),
        health=_over_inputs(model, report, images.shape[-2:], result.metainfo['pad_shape']),
        point_cloud_range=model.pts_bbox_head.point_cloud_range,
    )


def _over_inputs(
    model: CmtDetector, report: BaseDataElement, shape: tuple[int, int], padded: tuple[int, int]
) -> Health:
    """The report with maps over the whole range and over the images without their padding."""
    head, size = model.pts_bbox_head, report.bev.shape
    cells = model.health_monitor.voxel_grid.cell_size(size)
    extent = np.subtract(head.point_cloud_range[3:5], head.point_cloud_range[:2])
    columns, rows = (max(1, round(share)) for share in extent / cells)
    bev = fit_map(report.bev, (rows, columns))
    kept = [
        round(n * a / b) for n, a, b in zip(report.patches.shape[1:], shape, padded, strict=True)
    ]
    health = Health(report.lidar, report.cameras, bev, report.patches[:, : kept[0], : kept[1]])
    return Health(*(part.cpu().numpy() for part in health))


def render_health(views: Mapping[str, HealthView]) -> Figure:
    """Draw the health of one frame under several conditions.

    Args:
        views: of the same frame, by the name of the condition, from left to right.

    Returns:
        A figure outside pyplot's global state. Its axes are labelled by condition and sensor, such
        as ``clean CAM_FRONT``.
    """
    figure, axes = layout_columns(views)
    for condition, seen in views.items():
        for index, channel in enumerate(seen.cameras):
            _draw_camera(axes[f'{condition} {channel}'], seen, index)
        _draw_above(axes[f'{condition} {FROM_ABOVE}'], seen)
        title = axes[f'{condition} title']
        title.text(0, 0.5, condition, color=TEXT, fontsize=14, weight='bold', va='center')
    axes['scale'].text(
        0.5,
        0.5,
        'health 0 to 1: probability that nothing is wrong with the sensor; red: reported damage',
        color=FAINT,
        fontsize=10,
        ha='center',
        va='center',
    )
    draw_classes(axes['classes'], views)
    return figure


def _draw_camera(axes: Axes, seen: HealthView, index: int) -> None:
    height, width = seen.images[index].shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(seen.images[index], extent=extent, aspect='auto')
    colours = damage_colours(seen.health.patches[index])
    axes.imshow(colours, extent=extent, aspect='auto', interpolation='bilinear', zorder=2)
    draw_lidar_boxes_in_image(axes, seen.boxes, seen.lidar2img[index])
    axes.set(xlim=extent[:2], ylim=extent[2:])
    name = seen.cameras[index].removeprefix('CAM_').replace('_', ' ')
    _label(axes, name, seen.health.cameras[index])


def _draw_above(axes: Axes, seen: HealthView) -> None:
    x_low, y_low, _, x_high, y_high, _ = seen.point_cloud_range
    # Rows of the map run along y, which points right here; x points down.
    axes.imshow(
        damage_colours(seen.health.bev).swapaxes(0, 1),
        extent=(y_low, y_high, -x_high, -x_low),
        aspect='auto',
        interpolation='bilinear',
        zorder=2,
    )
    draw_from_above(axes, seen.points, seen.boxes, (max(-y_low, y_high), max(-x_low, x_high)))
    _label(axes, 'LIDAR', seen.health.lidar)


def _label(axes: Axes, name: str, health: float) -> None:
    """The name of a sensor and its health; a frame of the colour of damage where it is unwell."""
    add_label(axes, f'{name}  {health:.2f}')
    if health < 0.5:
        axes.spines[:].set(visible=True, color=DAMAGE, linewidth=2.5)
