"""Annotated and predicted boxes of a sample in the frame of one of its sensors.

The devkit transforms the boxes; this module turns them into lines. The devkit orders the eight
corners as left top, right top, right bottom, left bottom of the front face, then of the rear face.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.utils import boxes_to_sensor
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility, view_points

OTHER = 'other'
FRONT = [[0, 1], [1, 2], [2, 3], [3, 0]]
EDGES = np.array([*FRONT, [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]])
ROOF, FLOOR, FRONT_OF_FLOOR = [0, 1, 5, 4], [2, 3, 7, 6], [2, 3]
# Depth in metres at which lines are clipped: points behind a camera have no image.
NEAR = 0.1


class Kind(Enum):
    """Kind of a box, which determines its style."""

    TRUTH = 'ground truth'
    UNSEEN = 'without points, not scored'
    PREDICTION = 'prediction (second number)'


@dataclass(frozen=True)
class SceneBox:
    """A box to draw.

    Attributes:
        name: Detection class, or ``other`` for an annotation of no detection class.
        kind: Kind of the box.
        box: The devkit's box in the frame of a sensor, metres.
    """

    name: str
    kind: Kind
    box: Box

    def lines(self) -> np.ndarray:
        """Both ends of the edges and of the heading line on the floor, (13, 2, 3)."""
        corners = self.box.corners().T
        heading = [corners[FLOOR].mean(0), corners[FRONT_OF_FLOOR].mean(0)]
        return np.concatenate([corners[EDGES], [heading]])

    def front(self) -> np.ndarray:
        """Both ends of the edges of the front face, (4, 2, 3)."""
        return self.box.corners().T[FRONT]

    def outline(self) -> np.ndarray:
        """Corners of the roof, (4, 3): front left, front right, rear right, rear left."""
        return self.box.corners().T[ROOF]


def sample_boxes(
    nusc: NuScenes, sample_data_token: str, predictions: Sequence[DetectionBox] = ()
) -> list[SceneBox]:
    """Annotations, then predictions, in the frame of a sensor at the time of its reading.

    Args:
        nusc: The database.
        sample_data_token: Token of a sensor reading of a keyframe.
        predictions: Predicted boxes of the sample in the global frame.
    """
    _, boxes, _ = nusc.get_sample_data(sample_data_token, box_vis_level=BoxVisibility.NONE)
    truth = [
        SceneBox(category_to_detection_name(box.name) or OTHER, _kind(nusc, box), box)
        for box in boxes
    ]
    reading = nusc.get('sample_data', sample_data_token)
    moved = boxes_to_sensor(
        predictions,
        nusc.get('ego_pose', reading['ego_pose_token']),
        nusc.get('calibrated_sensor', reading['calibrated_sensor_token']),
    )
    return truth + [
        SceneBox(prediction.detection_name, Kind.PREDICTION, box)
        for prediction, box in zip(predictions, moved, strict=True)
    ]


def project(lines: np.ndarray, intrinsic: np.ndarray) -> np.ndarray:
    """Project lines to an image and clip them at the camera.

    The devkit's ``BoxVisibility`` keeps or drops whole boxes, so a vehicle beside the car that
    extends behind the camera would be missing.

    Args:
        lines: Both ends in the camera's frame, (S, 2, 3), metres.
        intrinsic: Pinhole matrix, (3, 3).

    Returns:
        Both ends in pixels, (T, 2, 2), of the T <= S lines that are partly in front of the camera.
    """
    lines = lines[lines[..., 2].max(1) > NEAR]
    depth = lines[..., 2]
    behind = depth < NEAR
    # The share is used only for an end behind the camera, where the two depths differ.
    gap = np.where(behind, depth[:, ::-1] - depth, 1.0)
    share = np.where(behind, (NEAR - depth) / gap, 0.0)
    cut = lines + share[..., None] * (lines[:, ::-1] - lines)
    return view_points(cut.reshape(-1, 3).T, intrinsic, normalize=True)[:2].T.reshape(-1, 2, 2)


def _kind(nusc: NuScenes, box: Box) -> Kind:
    """Kind of an annotation; the official score ignores those without LiDAR or radar points."""
    annotation = nusc.get('sample_annotation', box.token)
    points = annotation['num_lidar_pts'] + annotation['num_radar_pts']
    return Kind.TRUTH if points > 0 else Kind.UNSEEN
