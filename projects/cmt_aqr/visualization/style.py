"""Colours of classes and line styles of kinds of boxes."""

import zlib
from dataclasses import dataclass

from matplotlib.colors import LinearSegmentedColormap

from .scene_boxes import OTHER, Kind, SceneBox

# Classes of similar shape differ clearly in colour: truck and construction vehicle, bus and
# trailer, motorcycle and bicycle.
COLOURS = {
    'car': '#ff9a1f',
    'truck': '#ff4040',
    'construction_vehicle': '#ffe34d',
    'bus': '#3fd0ff',
    'trailer': '#b07cff',
    'barrier': '#d9c7b0',
    'motorcycle': '#ff66d0',
    'bicycle': '#35f0a0',
    'pedestrian': '#5b93ff',
    'traffic_cone': '#c3f53c',
    OTHER: '#9aa0a6',
}
BACKGROUND, PANEL, TEXT, FAINT = '#0e1116', '#151a21', '#e8eaed', '#7d8998'
# Paths of the ego vehicle.
PATHS = {'driven': TEXT, 'plan': '#ffe11a'}
# LiDAR points by height, from low to high.
POINTS = LinearSegmentedColormap.from_list('points', ['#3c5069', '#7a97b5', '#eaf1f8'])
# Router weights: negative, zero (plain CMT), positive. Pictures fade them out towards zero.
WEIGHTS = LinearSegmentedColormap.from_list(
    'weights', ['#ff3322', '#ff6b52', '#b9a9ff', '#4aa8ff', '#0a84ff']
)


@dataclass(frozen=True)
class Style:
    """How a kind of box is drawn.

    Attributes:
        width: Line width in points.
        dashes: matplotlib's line style.
        opacity: Opacity of the lines, 0 to 1.
        front: Opacity of the front face, which marks the heading; 0 for none.
        colour: Colour of the kind; None for that of the class.
    """

    width: float
    dashes: str | tuple
    opacity: float
    front: float
    colour: str | None = None


STYLES = {
    Kind.TRUTH: Style(1.5, 'solid', 1.0, 0.3),
    Kind.UNSEEN: Style(0.8, 'solid', 0.6, 0.15),
    Kind.PREDICTION: Style(1.5, 'solid', 1.0, 0.3),
    Kind.FOUND: Style(0.9, 'solid', 0.8, 0.0, '#e8eaed'),
    Kind.HIT: Style(1.5, 'solid', 1.0, 0.3, '#35f08a'),
    Kind.MISS: Style(1.7, (0, (2.5, 1.6)), 1.0, 0.15, '#ff4040'),
    Kind.FALSE_ALARM: Style(1.7, (0, (5, 1.4)), 1.0, 0.3, '#ff66d0'),
    Kind.GONE: Style(1.7, (0, (2.5, 1.6)), 1.0, 0.1, '#ffffff'),
    Kind.NEW: Style(2.4, 'solid', 1.0, 0.5, '#ffffff'),
}


def colour_of(item: SceneBox) -> str:
    """Colour of a box: that of its kind, or else of its class.

    A class that nuScenes lacks has one of the ten colours, always the same.
    """
    names = [name for name in COLOURS if name != OTHER]
    spare = COLOURS[names[zlib.crc32(item.name.encode()) % len(names)]]
    return STYLES[item.kind].colour or COLOURS.get(item.name, spare)
