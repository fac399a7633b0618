"""Annotated and predicted boxes of one sample in the frame of one of its sensors.

The devkit moves the boxes; here they only become lines. Its order of a box's eight corners: the
four of the front face (left top, right top, right bottom, left bottom), then those of the rear.
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
# Metres before a camera at which lines are cut: behind it they have no image.
NEAR = 0.1


class Kind(Enum):
    """What a box is; each kind is drawn in a style of its own."""

    TRUTH = 'ground truth'
    UNSEEN = 'without points, not scored'
    PREDICTION = 'prediction (second number)'


@dataclass(frozen=True)
class SceneBox:
    """A box to draw.

    Attributes:
        name: Detection class, or ``other`` for an annotation of no detection class.
        kind: What it is.
        box: The devkit's box, in a sensor's frame, metres.
    """

    name: str
    kind: Kind
    box: Box

    def lines(self) -> np.ndarray:
        """(13, 2, 3) both ends of its edges and of its heading mark, a line on its floor."""
        corners = self.box.corners().T
        heading = [corners[FLOOR].mean(0), corners[FRONT_OF_FLOOR].mean(0)]
        return np.concatenate([corners[EDGES], [heading]])

    def front(self) -> np.ndarray:
        """(4, 2, 3) both ends of the edges of its front face."""
        return self.box.corners().T[FRONT]

    def outline(self) -> np.ndarray:
        """(4, 3) corners of its roof: left and right at the front, right and left at the rear."""
        return self.box.corners().T[ROOF]


def sample_boxes(
    nusc: NuScenes, sample_data_token: str, predictions: Sequence[DetectionBox] = ()
) -> list[SceneBox]:
    """Annotations, then predictions, in the frame of a sensor at the moment it was read.

    Args:
        nusc: The database.
        sample_data_token: The sensor's reading; it belongs to a keyframe.
        predictions: Predicted boxes of that sample, in the global frame.
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
    """Image of lines, without what lies behind the camera.

    The devkit's ``BoxVisibility`` keeps or drops a whole box; a vehicle beside the car, half of it
    behind the camera, would be missing.

    Args:
        lines: (S, 2, 3) both ends in the camera's frame, metres.
        intrinsic: (3, 3) pinhole matrix.

    Returns:
        (T, 2, 2) both ends in pixels, of the T <= S lines that reach before the camera.
    """
    lines = lines[lines[..., 2].max(1) > NEAR]
    depth = lines[..., 2]
    behind = depth < NEAR
    # Only where an end is behind is the share used, and then the two depths differ.
    gap = np.where(behind, depth[:, ::-1] - depth, 1.0)
    share = np.where(behind, (NEAR - depth) / gap, 0.0)
    cut = lines + share[..., None] * (lines[:, ::-1] - lines)
    return view_points(cut.reshape(-1, 3).T, intrinsic, normalize=True)[:2].T.reshape(-1, 2, 2)


def _kind(nusc: NuScenes, box: Box) -> Kind:
    """The official score leaves out annotations that neither LiDAR nor radar has touched."""
    annotation = nusc.get('sample_annotation', box.token)
    points = annotation['num_lidar_pts'] + annotation['num_radar_pts']
    return Kind.TRUTH if points > 0 else Kind.UNSEEN
