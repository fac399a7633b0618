"""A picture of the router's weights over its inputs, for several conditions.

Each condition has a column: its cameras in the order of their ring, and the scene from above.
Colour is the mean weight of the nearby queries, on one scale for the whole picture. Opacity grows
with the weight and with the nearness of queries: a weight of zero leaves the picture unchanged.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .drawing import add_label, add_legend, draw_from_above, draw_lidar_boxes_in_image
from .frame import COLUMNS, FROM_ABOVE, PIXELS_PER_INCH, camera_title, ring_order
from .observation import Observation, WeightMap
from .style import BACKGROUND, COLOURS, FAINT, PANEL, TEXT, WEIGHTS

# Layout in pixels: a column for each condition under its title; below them the scale of the colours
# and the legend of the classes.
COLUMN, SIDE, GAP, TITLE, SCALE, LEGEND = 900, 12, 5, 40, 50, 34
# Opacity of the largest weight, and the smallest weight that may get the full colour.
MOST_OPAQUE, LEAST_SCALE = 0.8, 0.05
# Share of an image's own saturation that remains, so that the colours of the weights stand out.
COLOURFUL = 0.25


def render_weights_over_inputs(observations: Mapping[str, Observation]) -> Figure:
    """Draw the router's weights for one frame under several conditions.

    Args:
        observations: of the same frame, by the name of the condition, from left to right.

    Returns:
        A figure without a window or global state. Its axes are labelled by condition and sensor,
        such as ``clean CAM_FRONT``.
    """
    scale = max(LEAST_SCALE, *(_greatest(seen) for seen in observations.values()))
    figure, axes = layout_columns(observations)
    for condition, seen in observations.items():
        panels = {label: axes[f'{condition} {label}'] for label in (*seen.cameras, FROM_ABOVE)}
        for index, channel in enumerate(seen.cameras):
            _draw_camera(panels[channel], seen, index, scale)
        _draw_above(panels[FROM_ABOVE], seen, scale)
        _draw_title(axes[f'{condition} title'], condition, seen)
    _draw_scale(axes['scale'], scale)
    draw_classes(axes['classes'], observations)
    return figure


def overlay(part: WeightMap, scale: float, index: int | None = None) -> np.ndarray:
    """(h, w, 4) colours of a map, or of the map of one camera.

    Args:
        part: the map.
        scale: weight that gets the full colour.
        index: index of the camera, if the map is that of cameras.
    """
    mean, coverage = (values if index is None else values[index] for values in part)
    strength = (mean / scale).clip(-1, 1)
    rgba = WEIGHTS((strength + 1) / 2)
    rgba[..., 3] = MOST_OPAQUE * np.sqrt(np.abs(strength)) * coverage.clip(0, 1)
    return rgba


def _greatest(seen: Observation) -> float:
    """Largest magnitude of a weight in the maps."""
    return max(float(np.abs(part.mean).max(initial=0)) for part in (seen.lidar, seen.camera))


def layout_columns(observations: Mapping[str, Observation]) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure and its axes by label, a column for each observation.

    Args:
        observations: anything with ``images`` (V, H, W, 3) and ``cameras``, by condition.
    """
    wide = (COLUMN - (COLUMNS - 1) * GAP) / COLUMNS
    first = next(iter(observations.values()))
    high = wide * first.images.shape[1] / first.images.shape[2]
    rows = -(-len(first.cameras) // COLUMNS)
    above = TITLE + rows * (high + GAP)
    width = SIDE + len(observations) * (COLUMN + SIDE)
    height = round(above + COLUMN + GAP + SCALE + LEGEND)
    figure = Figure(
        figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH),
        dpi=PIXELS_PER_INCH,
        facecolor=BACKGROUND,
    )
    FigureCanvasAgg(figure)
    axes = {}

    def add(label: str, left: float, top: float, size: tuple[float, float]) -> None:
        place = (left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height)
        axes[label] = figure.add_axes(place, label=label, facecolor=PANEL, xticks=[], yticks=[])
        axes[label].spines[:].set_visible(False)

    for column, (condition, seen) in enumerate(observations.items()):
        left = SIDE + column * (COLUMN + SIDE)
        add(f'{condition} title', left, 0, (COLUMN, TITLE))
        for place, channel in enumerate(
            ring_order(dict(zip(seen.cameras, seen.lidar2img, strict=True)))
        ):
            i, j = divmod(place, COLUMNS)
            corner = (left + j * (wide + GAP), TITLE + i * (high + GAP))
            add(f'{condition} {channel}', *corner, (wide, high))
        add(f'{condition} {FROM_ABOVE}', left, above, (COLUMN, COLUMN))
    below = above + COLUMN + GAP
    add('scale', SIDE, below, (width - 2 * SIDE, SCALE))
    add('classes', SIDE, below + SCALE, (width - 2 * SIDE, LEGEND))
    for label in ('scale', 'classes', *(f'{condition} title' for condition in observations)):
        axes[label].set_facecolor(BACKGROUND)
    return figure, axes


def _draw_camera(axes: Axes, seen: Observation, index: int, scale: float) -> None:
    height, width = seen.images[index].shape[:2]
    extent = (0, width, height, 0)
    image = seen.images[index] / 255
    grey = image.mean(axis=-1, keepdims=True)
    axes.imshow(grey + COLOURFUL * (image - grey), extent=extent, aspect='auto')
    colours = overlay(seen.camera, scale, index)
    axes.imshow(colours, extent=extent, aspect='auto', interpolation='bilinear', zorder=2)
    draw_lidar_boxes_in_image(axes, seen.boxes, seen.lidar2img[index])
    axes.set(xlim=extent[:2], ylim=extent[2:])
    add_label(axes, camera_title(seen.cameras[index]))


def _draw_above(axes: Axes, seen: Observation, scale: float) -> None:
    x_low, y_low, _, x_high, y_high, _ = seen.point_cloud_range
    # Rows of the map run along y, which is to the right here; x runs downwards.
    axes.imshow(
        overlay(seen.lidar, scale).swapaxes(0, 1),
        extent=(y_low, y_high, -x_high, -x_low),
        aspect='auto',
        interpolation='bilinear',
        zorder=2,
    )
    draw_from_above(axes, seen.points, seen.boxes, (max(-y_low, y_high), max(-x_low, x_high)))
    add_label(axes, 'from above, driving to the right')


def _draw_title(axes: Axes, condition: str, seen: Observation) -> None:
    lidar, camera = seen.mean_weights
    text = f'mean weight: LiDAR {lidar:+.2f}, cameras {camera:+.2f}   boxes: {len(seen.boxes)}'
    axes.text(0, 0.5, condition, color=TEXT, fontsize=14, weight='bold', va='center')
    axes.text(1, 0.5, text, color=TEXT, fontsize=10.5, ha='right', va='center')


def _draw_scale(axes: Axes, scale: float) -> None:
    """A colour bar over the colour of a panel."""
    weights = np.linspace(-scale, scale, 256)[None]
    colours = overlay(WeightMap(weights, np.ones_like(weights)), scale)
    bar = axes.inset_axes((0.3, 0.5, 0.4, 0.3), facecolor=PANEL, yticks=[])
    bar.imshow(colours, extent=(-scale, scale, 0, 1), aspect='auto')
    bar.set_xticks([-scale, 0, scale], [f'{-scale:.2f}', '0, as CMT', f'+{scale:.2f}'])
    bar.tick_params(colors=TEXT, length=0, labelsize=9, pad=3)
    bar.spines[:].set_color(FAINT)
    away, closer = 'look away from this sensor', 'look closer at this sensor'
    for place, text, side in ((0.29, away, 'right'), (0.71, closer, 'left')):
        axes.text(place, 0.65, text, color=TEXT, fontsize=9, ha=side, va='center')


def draw_classes(axes: Axes, observations: Mapping[str, Observation]) -> None:
    """Legend of the classes detected under any condition."""
    found = {item.name for seen in observations.values() for item in seen.boxes}
    lines = {
        name.replace('_', ' '): Line2D([], [], color=colour, lw=5)
        for name, colour in COLOURS.items()
        if name in found
    }
    if lines:
        add_legend(axes, lines, 'center')
