"""Drawing of boxes, points, labels and legends, shared by all pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon
from matplotlib.patheffects import withStroke

from ..files import replacing
from .scene_boxes import SceneBox, project
from .style import BACKGROUND, FAINT, PATHS, POINTS, STYLES, TEXT, colour_of

# Metres between the rings of the view from above.
RING = 10.0
# Heights in the LiDAR frame, metres, of the darkest and brightest points: ground to roof.
POINT_HEIGHTS = (-2.0, 1.5)
# Distance in metres beyond which lines in images become thinner.
FINER_BEYOND = 12.0
# Depth in metres from which a path is drawn in an image.
NEAREST = 1.0
# Size of the labels of boxes in points, and the height of a box with a label in an image, as a
# share of the image.
LABEL, LARGE = 7.5, 0.1


def save(figure: Figure, file: Path) -> Path:
    """Write a figure, with the folder if it does not exist; return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        figure.savefig(temporary)
    return file


def draw_from_above(
    axes: Axes,
    points: np.ndarray,
    boxes: Sequence[SceneBox],
    reach: tuple[float, float],
    *,
    labels: bool = False,
) -> None:
    """Draw the scene from above, with the car driving to the right.

    Args:
        axes: axes to draw into; the points take its label.
        points: (N, 3 or more) points in the LiDAR frame, metres.
        boxes: boxes in the LiDAR frame.
        reach: extent of the view to each side, horizontally and vertically, metres.
        labels: whether to write class and score beside the boxes.
    """
    points = points[points[:, 2].argsort()]
    low, high = POINT_HEIGHTS
    # Above the lines, which would hide the points on the sides of objects.
    axes.scatter(
        *from_above(points).T,
        c=points[:, 2],
        s=1.7,
        cmap=POINTS,
        vmin=low,
        vmax=high,
        lw=0,
        zorder=5,
        label=axes.get_label(),
    )
    for item in boxes:
        outline = from_above(item.outline())
        add_lines(axes, item, np.stack([outline, np.roll(outline, -1, axis=0)], axis=1))
        add_front(axes, item, np.stack([outline.mean(0), outline[0], outline[1]]))
    axes.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
    if labels:
        outlines = (from_above(item.outline()) for item in boxes)
        add_box_labels(axes, boxes, [np.array([o[:, 0].mean(), o[:, 1].max()]) for o in outlines])
    _draw_rings(axes, reach[0])
    axes.add_patch(Polygon([(-1.2, -0.9), (1.8, 0), (-1.2, 0.9)], color=TEXT, zorder=6))


def draw_lidar_boxes_in_image(
    axes: Axes, boxes: Sequence[SceneBox], lidar2img: np.ndarray, *, labels: bool = False
) -> None:
    """Draw boxes of the LiDAR frame in a camera's image.

    Args:
        axes: axes of the image, in pixels.
        boxes: boxes in the LiDAR frame.
        lidar2img: (4, 4) projection to (u * depth, v * depth, depth, 1) with u and v in pixels.
        labels: whether to write class and score above boxes that are large in the image.
    """

    def to_image(lines: np.ndarray) -> np.ndarray:
        scaled = lines @ lidar2img[:3, :3].T + lidar2img[:3, 3]
        return project(scaled, np.eye(3))

    named = []
    for item in boxes:
        depth = float(lidar2img[2, :3] @ item.box.center + lidar2img[2, 3])
        lines = to_image(item.lines())
        add_lines(axes, item, lines, np.clip(FINER_BEYOND / max(depth, 1.0), 0.4, 1.0))
        face = to_image(item.front())
        # A face that extends behind the camera is not a closed polygon in the image.
        if len(face) == 4 and np.allclose(face[:, 1], np.roll(face[:, 0], -1, axis=0)):
            add_front(axes, item, face[:, 0])
        if depth > 1 and np.ptp(lines[..., 1]) > LARGE * abs(np.diff(axes.get_ylim())):
            named.append((depth, item, np.array([lines[..., 0].mean(), lines[..., 1].min()])))
    if labels and named:
        _, *near_first = zip(*sorted(named, key=lambda entry: entry[0]), strict=True)
        add_box_labels(axes, *near_first)


def draw_path(axes: Axes, name: str, places: np.ndarray) -> None:
    """Draw a path (T, 2), in the coordinates of the axes, in the colour of its name."""
    axes.plot(
        *places.T,
        color=PATHS[name],
        lw=1.8,
        marker='o',
        ms=3.2,
        zorder=6,
        path_effects=[withStroke(linewidth=3.0, foreground='black')],
        scalex=False,
        scaley=False,
    )


def path_in_image(path: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Pixels (at most T, 2) of the positions (T, 3) of a path ahead of the camera."""
    scaled = path @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    ahead = scaled[scaled[:, 2] > NEAREST]
    return ahead[:, :2] / ahead[:, 2:]


def from_above(points: np.ndarray) -> np.ndarray:
    """Map points of the LiDAR frame (N, 3 or more) to the view from above, (N, 2) right and up."""
    return np.stack([points[:, 1], -points[:, 0]], axis=1)


def add_lines(axes: Axes, item: SceneBox, lines: np.ndarray, fineness: float = 1.0) -> None:
    """Draw lines (S, 2, 2) with an outline, coloured by class and styled by kind."""
    style = STYLES[item.kind]
    width = style.width * fineness
    collection = LineCollection(
        lines,
        colors=[to_rgba(colour_of(item), style.opacity)],
        linewidths=width,
        linestyles=[style.dashes],
        zorder=4,
    )
    rim = to_rgba('black', 0.5 * style.opacity)
    collection.set_path_effects([withStroke(linewidth=width + 1.4 * fineness, foreground=rim)])
    axes.add_collection(collection, autolim=False)


def add_front(axes: Axes, item: SceneBox, polygon: np.ndarray) -> None:
    """Fill a polygon (N, 2) that marks the front of a box."""
    colour = to_rgba(colour_of(item), STYLES[item.kind].front)
    axes.add_collection(PolyCollection([polygon], facecolors=[colour], zorder=3), autolim=False)


def add_box_labels(axes: Axes, boxes: Sequence[SceneBox], places: Sequence[np.ndarray]) -> None:
    """Write labels above places (2,) of a panel; one that would cover an earlier one is left out.

    The limits of the axes must have been set.
    """
    pixels_per_point = axes.figure.dpi / 72
    taken = np.empty((0, 2))
    for item, place in zip(boxes, places, strict=True):
        here = axes.transData.transform(place)
        # The size of a label, from the usual width of a letter.
        room = pixels_per_point * LABEL * np.array([0.6 * len(item.label), 1.1])
        if not item.label or (np.abs(taken - here) < room).all(axis=1).any():
            continue
        taken = np.concatenate([taken, here[None]])
        axes.annotate(
            item.label,
            place,
            (0, 1.5),
            textcoords='offset points',
            ha='center',
            color=colour_of(item),
            fontsize=LABEL,
            path_effects=[withStroke(linewidth=1.6, foreground=BACKGROUND)],
            annotation_clip=True,
            clip_on=True,
            zorder=8,
        )


def add_label(axes: Axes, text: str) -> None:
    """Write a label into the upper left corner of a panel."""
    axes.annotate(
        text,
        (0, 1),
        (8, -8),
        xycoords='axes fraction',
        textcoords='offset points',
        va='top',
        color=TEXT,
        fontsize=9,
        fontweight='bold',
        bbox=dict(facecolor=BACKGROUND, alpha=0.7, edgecolor='none', boxstyle='square,pad=0.35'),
        zorder=7,
    )


def add_legend(axes: Axes, entries: dict[str, Line2D], place: str) -> None:
    """Add a legend of lines by name, in one row."""
    for line in entries.values():
        line.set_solid_capstyle('butt')
    legend = axes.legend(
        entries.values(),
        entries.keys(),
        ncols=len(entries),
        loc=place,
        facecolor=BACKGROUND,
        edgecolor='none',
        framealpha=0.7,
        fontsize=9,
        labelcolor=TEXT,
        handlelength=2.0,
        handletextpad=0.6,
        columnspacing=1.5,
    )
    legend.set_zorder(7)


def _draw_rings(axes: Axes, reach: float) -> None:
    """Draw circles around the LiDAR, each labelled with its radius at the front left."""
    for radius in np.arange(RING, reach, RING):
        axes.add_patch(Circle((0, 0), radius, fill=False, ec=FAINT, lw=0.6, alpha=0.6, zorder=1))
        place = radius * np.sqrt(0.5)
        axes.text(place, place, f'{radius:.0f} m', color=FAINT, fontsize=8, zorder=1, clip_on=True)
