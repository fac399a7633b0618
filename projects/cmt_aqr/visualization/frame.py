"""Picture of a keyframe: six camera images and the scene from above, with boxes.

The three front cameras are in the first row and the three rear cameras in the second. Below them is
the scene from above, with the car driving to the right: y of the LiDAR frame points right, x points
down. Correct boxes enclose the points below and the objects above.
"""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.utils.data_classes import LidarPointCloud

from .drawing import (
    add_label,
    add_legend,
    draw_from_above,
    draw_in_image,
    from_above,
)
from .scene_boxes import OTHER, Kind, SceneBox, project, sample_boxes
from .style import BACKGROUND, COLOURS, FAINT, PANEL, STYLES, TEXT

CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)
COLUMNS = 3
LIDAR = 'LIDAR_TOP'
# Layout in pixels at the default width; other widths scale all of it.
WIDTH, SIDE, GAP, HEADER, LEGEND, ABOVE = 1600, 16, 8, 44, 40, 680
INNER = WIDTH - 2 * SIDE
PIXELS_PER_INCH = 100
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
    """Draw one keyframe.

    Args:
        nusc: The database.
        sample_token: Token of the keyframe.
        predictions: Boxes of a result file, drawn with dashed lines over the ground truth.
        score_threshold: Minimum score of a drawn prediction.
        width: Width of the picture in pixels.

    Returns:
        A figure outside pyplot's global state. The labels of its axes are the sensors' channels.

    Raises:
        ValueError: The database has no such sample, or the predictions do not cover it.
    """
    sample = _find_sample(nusc, sample_token)
    predicted = _find_predictions(predictions, sample_token, score_threshold)
    boxes = sample_boxes(nusc, sample['data'][LIDAR], predicted)
    image = nusc.get('sample_data', sample['data'][CAMERAS[0]])
    figure, axes = _layout(image['width'] / image['height'], width)
    for channel in CAMERAS:
        _draw_camera(axes[channel], nusc, sample['data'][channel], predicted)
    _draw_above(axes[LIDAR], nusc.get_sample_data_path(sample['data'][LIDAR]), boxes)
    _draw_header(figure, nusc, sample)
    _draw_legends(axes, boxes, None if predictions is None else score_threshold)
    return figure


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
) -> list[DetectionBox]:
    if predictions is None:
        return []
    if token not in predictions.sample_tokens:
        raise ValueError(
            f'the predictions lack sample {token!r}; the {len(predictions.sample_tokens)} samples '
            'they hold are of another split or another database'
        )
    return [box for box in predictions[token] if box.detection_score >= score_threshold]


def _layout(aspect: float, width: int) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure and its axes by label; ``aspect`` is the images' width over height."""
    column = (INNER - (COLUMNS - 1) * GAP) / COLUMNS
    row = column / aspect
    below = HEADER + len(CAMERAS) // COLUMNS * (row + GAP)
    height = round(below + LEGEND + ABOVE + SIDE)
    figure = Figure(
        figsize=(WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH),
        dpi=PIXELS_PER_INCH * width / WIDTH,
        facecolor=BACKGROUND,
    )
    FigureCanvasAgg(figure)

    def add(label: str, left: float, top: float, wide: float, high: float) -> Axes:
        place = (left / WIDTH, 1 - (top + high) / height, wide / WIDTH, high / height)
        axes = figure.add_axes(place, label=label, facecolor=PANEL, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    axes = {}
    for place, channel in enumerate(CAMERAS):
        i, j = divmod(place, COLUMNS)
        axes[channel] = add(
            channel, SIDE + j * (column + GAP), HEADER + i * (row + GAP), column, row
        )
    axes['legend'] = add('legend', SIDE, below, INNER, LEGEND)
    axes[LIDAR] = add(LIDAR, SIDE, below + LEGEND, INNER, ABOVE)
    return figure, axes


def _draw_camera(
    axes: Axes, nusc: NuScenes, token: str, predictions: Sequence[DetectionBox]
) -> None:
    path, _, intrinsic = nusc.get_sample_data(token, selected_anntokens=[])
    record = nusc.get('sample_data', token)
    # The origin of pixel coordinates is the corner of the first pixel, not its centre.
    extent = (0, record['width'], record['height'], 0)
    axes.imshow(imread(path), extent=extent, aspect='auto')
    for item in sample_boxes(nusc, token, predictions):
        draw_in_image(axes, item, item.box.center[2], lambda lines: project(lines, intrinsic))
    axes.set(xlim=extent[:2], ylim=extent[2:])
    add_label(axes, axes.get_label().removeprefix('CAM_').replace('_', ' '))


def _draw_above(axes: Axes, lidar_file: str, boxes: Sequence[SceneBox]) -> None:
    outlines = [from_above(item.outline()) for item in boxes]
    reach = _reach(np.concatenate([*outlines, np.zeros((1, 2))]))
    draw_from_above(axes, LidarPointCloud.from_file(lidar_file).points.T, boxes, reach)
    add_label(axes, 'FROM ABOVE, DRIVING TO THE RIGHT')


def _reach(places: np.ndarray) -> tuple[float, float]:
    """Extent of the view that contains the positions (N, 2), within limits; metres."""
    wide, high = np.clip(np.abs(places).max(0) + 1.5, LEAST_REACH, MOST_REACH)
    high = max(high, wide * ABOVE / INNER)
    return float(high * INNER / ABOVE), float(high)


def _draw_header(figure: Figure, nusc: NuScenes, sample: dict) -> None:
    scene = nusc.get('scene', sample['scene_token'])
    number, before = 1, sample['prev']
    while before:
        number, before = number + 1, nusc.get('sample', before)['prev']
    middle = 1 - HEADER / 2 / (figure.get_figheight() * PIXELS_PER_INCH)
    title = f'{scene["name"]}   keyframe {number} of {scene["nbr_samples"]}'
    figure.text(SIDE / WIDTH, middle, title, color=TEXT, fontsize=13, weight='bold', va='center')
    text = f'{nusc.version}   sample {sample["token"]}'
    figure.text(1 - SIDE / WIDTH, middle, text, color=FAINT, fontsize=9, ha='right', va='center')


def _draw_legends(
    axes: dict[str, Axes], boxes: Sequence[SceneBox], score_threshold: float | None
) -> None:
    """Draw the legends of classes, with numbers of boxes, and of kinds of lines."""
    truth = Counter(item.name for item in boxes if item.kind is not Kind.PREDICTION)
    found = Counter(item.name for item in boxes if item.kind is Kind.PREDICTION)
    classes, kinds = {}, {}
    for name, colour in COLOURS.items():
        if name != OTHER or truth[OTHER]:
            count = (
                f'{truth[name]}' if score_threshold is None else f'{truth[name]} : {found[name]}'
            )
            classes[f'{name.replace("_", " ")}  {count}'] = Line2D([], [], color=colour, lw=6)
    for kind, style in STYLES.items():
        if kind is not Kind.PREDICTION or score_threshold is not None:
            score = f', score ≥ {score_threshold:g}' if kind is Kind.PREDICTION else ''
            kinds[kind.value + score] = Line2D(
                [], [], color=TEXT, lw=style.width, ls=style.dashes, alpha=style.opacity
            )
    axes['legend'].set_facecolor(BACKGROUND)
    add_legend(axes['legend'], classes, 'center')
    add_legend(axes[LIDAR], kinds, 'upper right')
