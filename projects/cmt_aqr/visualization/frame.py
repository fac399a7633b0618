"""Picture of one frame, alone or under several conditions side by side.

A condition has its camera images in the order of their ring, from left to right ahead and then
behind, and below them the scene from above, with the car driving to the right: y of the LiDAR frame
points right, x points down. Correct boxes enclose the points below and the objects above.
"""

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox

from .drawing import (
    add_legend,
    draw_from_above,
    draw_lidar_boxes_in_image,
    draw_path,
    from_above,
    path_in_image,
)
from .frame_view import FrameView, database_view
from .scene_boxes import MARKS, Kind, SceneBox
from .style import BACKGROUND, FAINT, PANEL, PATHS, STYLES, TEXT, colour_of

COLUMNS = 3
FROM_ABOVE = 'from above'
# Layout in pixels of one condition at the default width; other widths scale all of it. STRIP is
# the line above a panel with its name, HEADING that of the condition.
WIDTH, SIDE, GAP, HEADER, HEADING, STRIP, LEGEND, ABOVE = 1600, 16, 8, 48, 38, 24, 40, 720
INNER = WIDTH - 2 * SIDE
PIXELS_PER_INCH = 100
# Width of a picture of several conditions.
WIDE = 2400
# Limits of the extent of the view from above to each side, metres.
LEAST_REACH, MOST_REACH = 20.0, 55.0
MOST_PREDICTIONS = 500


def load_predictions(file: str | os.PathLike) -> EvalBoxes:
    """Boxes of an official result file, such as ``NuScenesMetric`` writes.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not an official result file.
    """
    try:
        return load_prediction(str(file), MOST_PREDICTIONS, DetectionBox)[0]
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{file} is not an official nuScenes result file ({error}); '
            'tools/test.py leaves one named results_nusc.json'
        ) from error


def render_frame(
    nusc: NuScenes,
    sample_token: str,
    *,
    predictions: EvalBoxes | None = None,
    score_threshold: float = 0.3,
    width: int = WIDTH,
) -> Figure:
    """Draw one keyframe of a database.

    Args:
        nusc: The database.
        sample_token: Token of the keyframe.
        predictions: Boxes of a result file, drawn as hits and false alarms among the ground truth.
        score_threshold: Minimum score of a drawn prediction.
        width: Width of the picture in pixels.

    Raises:
        ValueError: The database has no such sample, or the predictions do not cover it.
    """
    sample = _find_sample(nusc, sample_token)
    predicted = _find_predictions(predictions, sample_token, score_threshold)
    note = f'{nusc.version}   sample {sample_token}'
    if predictions is not None:
        note = f'score ≥ {score_threshold:g}   {note}'
    view = database_view(nusc, sample, predicted)
    return render_views({'': view}, title=_title(nusc, sample), note=note, width=width)


def render_views(
    views: Mapping[str, FrameView], *, title: str, note: str = '', width: int | None = None
) -> Figure:
    """Draw a frame under one or several conditions, side by side.

    Args:
        views: the frame by heading of the condition, from left to right.
        title: title of the picture.
        note: text in its upper right corner.
        width: width of the picture in pixels; None for a width by the number of conditions.

    Returns:
        A figure outside pyplot's global state. The labels of its axes are the names of the cameras,
        'from above' and 'legend', preceded by the heading where there is one.
    """
    figure, axes = _layout(views, width or (WIDTH if len(views) == 1 else WIDE))
    outlines = [from_above(item.outline()) for view in views.values() for item in view.boxes]
    reach = _reach(np.concatenate([*outlines, np.zeros((1, 2))]))
    for heading, view in views.items():
        panels = {name: axes[_label(heading, name)] for name in (*view.images, FROM_ABOVE)}
        for name, image in view.images.items():
            _draw_camera(panels[name], name, image, view)
        draw_from_above(panels[FROM_ABOVE], view.points, view.boxes, reach, labels=True)
        for name in view.paths:
            draw_path(panels[FROM_ABOVE], name, from_above(view.paths[name]))
        _add_name(panels[FROM_ABOVE], 'from above, driving to the right')
        _draw_legend(axes[_label(heading, 'legend')], view)
        if heading:
            _draw_heading(axes[_label(heading, 'heading')], heading, view.note)
    height = figure.get_figheight() * PIXELS_PER_INCH
    middle, side = 1 - HEADER / 2 / height, SIDE / len(views) / WIDTH
    figure.text(side, middle, title, color=TEXT, fontsize=14, weight='bold', va='center')
    figure.text(1 - side, middle, note, color=FAINT, fontsize=10, ha='right', va='center')
    return figure


def ring_order(lidar2img: Mapping[str, np.ndarray]) -> list[str]:
    """Names of cameras from left to right ahead, and then from left to right behind.

    Args:
        lidar2img: (4, 4) projections by camera; their third row is the direction of sight.
    """

    def place(name: str) -> tuple[bool, float]:
        x, y = lidar2img[name][2, :2]
        leftwards = np.degrees(np.arctan2(-x, y))
        behind = bool(abs(leftwards) > 90)
        return behind, leftwards % 360 if behind else -leftwards

    return sorted(lidar2img, key=place)


def camera_title(name: str) -> str:
    """Name of a camera for people: ``CAM_FRONT_LEFT`` becomes ``front left``."""
    return name.removeprefix('CAM_').replace('_', ' ').lower()


def _find_sample(nusc: NuScenes, token: str) -> dict:
    try:
        return nusc.get('sample', token)
    except KeyError:
        raise ValueError(
            f'{nusc.dataroot} has no sample {token!r}; '
            f'the first of its {len(nusc.sample)} is {nusc.sample[0]["token"]!r}'
        ) from None


def _find_predictions(
    predictions: EvalBoxes | None, token: str, score_threshold: float
) -> list[DetectionBox] | None:
    if predictions is None:
        return None
    if token not in predictions.sample_tokens:
        raise ValueError(
            f'the predictions lack sample {token!r}; the {len(predictions.sample_tokens)} samples '
            'they hold are of another split or another database'
        )
    return [box for box in predictions[token] if box.detection_score >= score_threshold]


def _title(nusc: NuScenes, sample: dict) -> str:
    """Scene and number of a keyframe."""
    scene = nusc.get('scene', sample['scene_token'])
    number, before = 1, sample['prev']
    while before:
        number, before = number + 1, nusc.get('sample', before)['prev']
    return f'{scene["name"]}   keyframe {number} of {scene["nbr_samples"]}'


def _label(heading: str, name: str) -> str:
    return f'{heading} {name}'.strip()


def _layout(views: Mapping[str, FrameView], width: int) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure and its axes by label."""
    first = next(iter(views.values()))
    columns = min(COLUMNS, max(len(first.images), 1))
    column = (INNER - (columns - 1) * GAP) / columns
    # All rows are as high as the image that is the highest for its width.
    row = max((column * h / w for h, w, _ in (i.shape for i in first.images.values())), default=0)
    rows = -(-len(first.images) // columns)
    top = HEADER + (HEADING if any(views) else 0)
    below = top + rows * (STRIP + row + GAP)
    wide, high = WIDTH * len(views), round(below + LEGEND + STRIP + ABOVE + SIDE)
    figure = Figure(
        figsize=(wide / PIXELS_PER_INCH, high / PIXELS_PER_INCH),
        dpi=PIXELS_PER_INCH * width / wide,
        facecolor=BACKGROUND,
    )
    FigureCanvasAgg(figure)
    axes = {}

    def add(label: str, left: float, top: float, size: tuple[float, float], colour: str) -> None:
        place = (left / wide, 1 - (top + size[1]) / high, size[0] / wide, size[1] / high)
        axes[label] = figure.add_axes(place, label=label, facecolor=colour, xticks=[], yticks=[])
        axes[label].spines[:].set_visible(False)

    for number, (heading, view) in enumerate(views.items()):
        left = number * WIDTH + SIDE
        if heading:
            add(_label(heading, 'heading'), left, HEADER, (INNER, HEADING), BACKGROUND)
        for place, name in enumerate(ring_order(view.lidar2img)):
            i, j = divmod(place, columns)
            corner = (left + j * (column + GAP), top + STRIP + i * (STRIP + row + GAP))
            add(_label(heading, name), *corner, (column, row), PANEL)
        add(_label(heading, 'legend'), left, below, (INNER, LEGEND), BACKGROUND)
        add(_label(heading, FROM_ABOVE), left, below + LEGEND + STRIP, (INNER, ABOVE), PANEL)
    return figure, axes


def _draw_camera(axes: Axes, name: str, image: np.ndarray, view: FrameView) -> None:
    # The origin of pixel coordinates is the corner of the first pixel, not its centre.
    extent = (0, image.shape[1], image.shape[0], 0)
    axes.imshow(image, extent=extent)
    draw_lidar_boxes_in_image(axes, view.boxes, view.lidar2img[name], labels=True)
    for path, positions in view.paths.items():
        draw_path(axes, path, path_in_image(positions, view.lidar2img[name]))
    axes.set(xlim=extent[:2], ylim=extent[2:])
    _add_name(axes, camera_title(name))


def _add_name(axes: Axes, name: str) -> None:
    """Write the name of a panel into the strip above it, where it hides nothing."""
    axes.annotate(
        name, (0, 1), (1, 4), xycoords='axes fraction', textcoords='offset points', color=TEXT,
        fontsize=10.5, fontweight='bold',
    )  # fmt: skip


def _reach(places: np.ndarray) -> tuple[float, float]:
    """Extent of the view that contains the positions (N, 2), within limits; metres."""
    wide, high = np.clip(np.abs(places).max(0) + 1.5, LEAST_REACH, MOST_REACH)
    high = max(high, wide * ABOVE / INNER)
    return float(high * INNER / ABOVE), float(high)


def _draw_heading(axes: Axes, heading: str, note: str) -> None:
    axes.text(0, 0.5, heading, color=TEXT, fontsize=14, weight='bold', va='center')
    axes.text(1, 0.5, note, color=FAINT, fontsize=11, ha='right', va='center')


def _draw_legend(axes: Axes, view: FrameView) -> None:
    """Draw a legend of paths and, with their numbers, of boxes: by coloured kind, and by class."""
    boxes = view.boxes
    entries = {name: Line2D([], [], color=PATHS[name], lw=1.8, marker='o') for name in view.paths}
    for kind, style in STYLES.items():
        of_kind = [item for item in boxes if item.kind is kind]
        names = Counter(item.name for item in of_kind)
        if style.colour and of_kind:
            entries[f'{MARKS.get(kind, "")} {kind.value}  {len(of_kind)}'] = _line(of_kind[0])
        elif kind is Kind.UNSEEN and of_kind:
            entries[f'{kind.value}  {len(of_kind)}'] = Line2D(
                [], [], color=TEXT, lw=style.width, alpha=style.opacity
            )
        else:
            for item in {item.name: item for item in of_kind}.values():
                entries[f'{item.name.replace("_", " ")}  {names[item.name]}'] = _line(item)
    if entries:
        add_legend(axes, entries, 'center')


def _line(item: SceneBox) -> Line2D:
    """Line of a legend in the style of a box."""
    style = STYLES[item.kind]
    return Line2D([], [], color=colour_of(item), lw=2 * style.width, ls=style.dashes)
