"""The contact sheet of sensor failures: a row for each failure, a column for each severity.

Each cell shows the scene from above, with y of the LiDAR frame to the right, and three cameras, of
nuScenes those in front, both with the annotated boxes. Damaged areas are tinted red, more opaque
the less health is left. Boxes stay at the annotated positions, even where the failure shifts the
data.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from .damaged_frame import DamagedFrame
from .drawing import draw_from_above, draw_lidar_boxes_in_image
from .frame import FROM_ABOVE, PIXELS_PER_INCH
from .style import BACKGROUND, FAINT, PANEL, TEXT

# Cameras of nuScenes in a cell: a large image, and two small ones below it.
FRONT = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT')
# Layout in pixels: cells with a title above the panels.
ABOVE, GAP, SIDE, TITLE, HEADER = 300, 4, 14, 24, 36
# Colour of damage, and its opacity at a health of 0.
DAMAGE, MOST_OPAQUE = '#ff3322', 0.38


def shown_cameras(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the up to three cameras in a cell, out of those of a sample."""
    names = [*names]
    return FRONT if set(FRONT) <= set(names) else tuple(names[: len(FRONT)])


def render_failures(
    rows: Mapping[str, Sequence[DamagedFrame]], *, point_cloud_range: Sequence[float], title: str
) -> Figure:
    """Draw a frame under many failures.

    Args:
        rows: the frame at every severity, by name of the failure; the first entry is the intact
            frame, with which the numbers of points are compared.
        point_cloud_range: range of the LiDAR's health maps, metres.
        title: title of the sheet.

    Returns:
        A figure outside pyplot's global state. The labels of its axes name the failure, the
        severity from 1 and the sensor, such as ``fog 2 CAM_FRONT``.
    """
    clean = next(iter(rows.values()))[0]
    shown = shown_cameras(clean.images)
    figure, axes = _layout(rows, clean, shown, title)
    for name, frames in rows.items():
        for severity, frame in enumerate(frames, start=1):
            panels = {label: axes[f'{name} {severity} {label}'] for label in (FROM_ABOVE, *shown)}
            _draw_above(panels[FROM_ABOVE], frame, point_cloud_range)
            for camera in shown:
                _draw_camera(panels[camera], frame, camera)
            heading = name if frame is clean else f'{name}, severity {severity}'
            _draw_title(axes[f'{name} {severity} title'], heading, frame, clean)
    return figure


def damage_colours(health: np.ndarray) -> np.ndarray:
    """Map health (h, w) to RGBA (h, w, 4): transparent at 1, red at 0."""
    colours = np.empty((*health.shape, 4))
    colours[..., :3] = to_rgb(DAMAGE)
    colours[..., 3] = MOST_OPAQUE * (1 - health)
    return colours


def _layout(
    rows: Mapping[str, Sequence[DamagedFrame]],
    clean: DamagedFrame,
    shown: Sequence[str],
    title: str,
) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure and its axes by label."""
    first, *others = shown
    height, width = clean.images[first].shape[:2]
    # The small images are half as wide as the large one; together they are as high as the scene.
    large = (ABOVE - GAP) / 1.5 * width / height
    cell = ABOVE + GAP + large
    columns = max(map(len, rows.values()))
    sheet_width = round(SIDE + columns * (cell + SIDE))
    sheet_height = HEADER + len(rows) * (TITLE + ABOVE + SIDE)
    figure = Figure(
        figsize=(sheet_width / PIXELS_PER_INCH, sheet_height / PIXELS_PER_INCH),
        dpi=PIXELS_PER_INCH,
        facecolor=BACKGROUND,
    )
    FigureCanvasAgg(figure)
    middle = 1 - HEADER / 2 / sheet_height
    figure.text(SIDE / sheet_width, middle, title, color=TEXT, fontsize=13, va='center')
    figure.text(
        1 - SIDE / sheet_width,
        middle,
        'red: damaged, the denser the less is left     boxes: annotations',
        color=FAINT,
        fontsize=10,
        ha='right',
        va='center',
    )
    axes = {}

    def add(label: str, left: float, top: float, wide: float, high: float) -> None:
        place = (
            left / sheet_width,
            1 - (top + high) / sheet_height,
            wide / sheet_width,
            high / sheet_height,
        )
        axes[label] = figure.add_axes(place, label=label, facecolor=PANEL, xticks=[], yticks=[])
        axes[label].spines[:].set_visible(False)

    small = ((large - GAP) / 2, (ABOVE - GAP) / 3)
    for i, (name, frames) in enumerate(rows.items()):
        for j in range(len(frames)):
            left, top = SIDE + j * (cell + SIDE), HEADER + i * (TITLE + ABOVE + SIDE)
            here = f'{name} {j + 1}'
            add(f'{here} title', left, top, cell, TITLE)
            axes[f'{here} title'].set_facecolor(BACKGROUND)
            top += TITLE
            add(f'{here} {FROM_ABOVE}', left, top, ABOVE, ABOVE)
            left += ABOVE + GAP
            add(f'{here} {first}', left, top, large, ABOVE - GAP - small[1])
            for k, camera in enumerate(others):
                corner = (left + k * (small[0] + GAP), top + ABOVE - small[1])
                add(f'{here} {camera}', *corner, *small)
    return figure, axes


def _draw_above(axes: Axes, frame: DamagedFrame, point_cloud_range: Sequence[float]) -> None:
    x_low, y_low, _, x_high, y_high, _ = point_cloud_range
    # Rows of the map run along y, which points right here; x points down.
    axes.imshow(
        damage_colours(frame.lidar_health).swapaxes(0, 1),
        extent=(y_low, y_high, -x_high, -x_low),
        aspect='auto',
        interpolation='nearest',
        zorder=2,
    )
    reach = (max(-y_low, y_high), max(-x_low, x_high))
    draw_from_above(axes, frame.points, frame.boxes, reach)


def _draw_camera(axes: Axes, frame: DamagedFrame, camera: str) -> None:
    height, width = frame.images[camera].shape[:2]
    extent = (0, width, height, 0)
    axes.imshow(frame.images[camera], extent=extent, aspect='auto')
    colours = damage_colours(frame.camera_health[camera])
    axes.imshow(colours, extent=extent, aspect='auto', interpolation='nearest', zorder=2)
    draw_lidar_boxes_in_image(axes, frame.boxes, frame.lidar2img[camera])
    axes.set(xlim=extent[:2], ylim=extent[2:])


def _draw_title(axes: Axes, heading: str, frame: DamagedFrame, clean: DamagedFrame) -> None:
    cameras = np.mean([health.mean() for health in frame.camera_health.values()])
    text = (
        f'{len(frame.points):,} of {len(clean.points):,} points   healthy: LiDAR '
        f'{frame.lidar_health.mean():.2f}, cameras {cameras:.2f}'
    )
    if not frame.failed and frame is not clean:
        text = 'nothing happens to this frame'
    axes.text(0, 0.5, heading, color=TEXT, fontsize=10, weight='bold', va='center')
    axes.text(1, 0.5, text, color=FAINT, fontsize=8.5, ha='right', va='center')
