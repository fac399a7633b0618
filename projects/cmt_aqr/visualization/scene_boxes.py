"""Annotated and predicted boxes of a frame, and how the boxes of two lists correspond.

The devkit transforms the boxes; this module turns them into lines. The devkit orders the eight
corners as left top, right top, right bottom, left bottom of the front face, then of the rear face.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
import torch
from mmdet3d.evaluation.metrics.nuscenes_metric import output_to_nusc_box
from mmdet3d.structures import BaseInstance3DBoxes
from nuscenes import NuScenes
from nuscenes.eval.common.utils import boxes_to_sensor
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility, view_points

from ..evaluation.matches import match_centres

OTHER = 'other'
FRONT = [[0, 1], [1, 2], [2, 3], [3, 0]]
EDGES = np.array([*FRONT, [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]])
ROOF, FLOOR, FRONT_OF_FLOOR = [0, 1, 5, 4], [2, 3, 7, 6], [2, 3]
# Depth in metres at which lines are clipped: points behind a camera have no image.
NEAR = 0.1
# Distance of centres in metres within which boxes of a class correspond: that of the official
# evaluation's true positives.
NEAR_ENOUGH = 2.0


class Kind(Enum):
    """Kind of a box, which determines its style."""

    TRUTH = 'ground truth'
    UNSEEN = 'without points or out of range, not scored'
    PREDICTION = 'detection'
    FOUND = 'ground truth of a hit'
    HIT = 'hit'
    MISS = 'miss'
    FALSE_ALARM = 'false alarm'
    GONE = 'gone'
    NEW = 'new'


class Outcomes(NamedTuple):
    """Kinds of the boxes of two lists after a comparison."""

    matched: Kind
    """of a box with a counterpart in the reference"""
    extra: Kind
    """of a box without one"""
    missing: Kind
    """of a box of the reference without a counterpart"""
    reference: Kind | None = None
    """of a box of the reference with a counterpart; None to leave it out"""


# Signs of kinds in labels and legends, for those who cannot tell the colours.
MARKS = {Kind.HIT: '✓', Kind.MISS: '✗', Kind.FALSE_ALARM: '?', Kind.GONE: '−', Kind.NEW: '+'}
AGAINST_TRUTH = Outcomes(Kind.HIT, Kind.FALSE_ALARM, Kind.MISS, Kind.FOUND)
AGAINST_SOUND = Outcomes(Kind.PREDICTION, Kind.NEW, Kind.GONE)


@dataclass(frozen=True)
class SceneBox:
    """A box to draw.

    Attributes:
        name: Detection class, or ``other`` for an annotation of no detection class.
        kind: Kind of the box.
        box: The devkit's box in the frame of a sensor, metres; its score is NaN for an annotation.
    """

    name: str
    kind: Kind
    box: Box

    @property
    def label(self) -> str:
        """Text beside the box, empty for ground truth that was found."""
        if self.kind in (Kind.TRUTH, Kind.UNSEEN, Kind.FOUND):
            return ''
        score = '' if self.kind in (Kind.MISS, Kind.GONE) else f'{self.box.score:.2f}'
        return f'{MARKS.get(self.kind, "")} {self.name.replace("_", " ")} {score}'.strip()

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
    for prediction, box in zip(predictions, moved, strict=True):
        box.score = prediction.detection_score
    return truth + [
        SceneBox(prediction.detection_name, Kind.PREDICTION, box)
        for prediction, box in zip(predictions, moved, strict=True)
    ]


def scene_boxes(
    boxes: BaseInstance3DBoxes,
    labels: np.ndarray | torch.Tensor,
    classes: Sequence[str],
    scores: torch.Tensor | None = None,
) -> list[SceneBox]:
    """Boxes of MMDetection3D in the LiDAR frame; ground truth if they have no scores.

    Args:
        boxes: N boxes with velocities.
        labels: (N,) indices into the classes; boxes with a negative one are left out.
        classes: names of the classes.
        scores: (N,) confidence of predicted boxes.
    """
    kind = Kind.TRUTH if scores is None else Kind.PREDICTION
    labels = torch.as_tensor(labels)
    known = labels >= 0
    scores = torch.full(labels.shape, torch.nan) if scores is None else scores
    found, _ = output_to_nusc_box(
        dict(bboxes_3d=boxes[known], scores_3d=scores[known], labels_3d=labels[known])
    )
    return [SceneBox(classes[box.label], kind, box) for box in found]


def compare(
    reference: Sequence[SceneBox], boxes: Sequence[SceneBox], outcomes: Outcomes
) -> list[SceneBox]:
    """Both lists with the kinds of a comparison by the official rule of matching.

    In the order of their scores, boxes take the nearest free box of their class in the reference,
    if its centre is within 2 m. A reference box that is not scored stays as it is.
    """
    compared = [item for item in reference if item.kind is Kind.UNSEEN]
    reference = [item for item in reference if item.kind is not Kind.UNSEEN]
    for name in sorted({item.name for item in [*reference, *boxes]}):
        targets = [item for item in reference if item.name == name]
        ranked = sorted(
            (item for item in boxes if item.name == name), key=lambda item: -item.box.score
        )
        taken = np.full(len(ranked), -1)
        if targets and ranked:
            taken = match_centres(_centres(targets), _centres(ranked), [NEAR_ENOUGH])[:, 0]
        for index, item in enumerate(targets):
            kind = outcomes.reference if index in taken else outcomes.missing
            compared += [replace(item, kind=kind)] if kind else []
        for index, item in zip(taken, ranked, strict=True):
            kind = outcomes.matched if index >= 0 else outcomes.extra
            compared.append(replace(item, kind=kind))
    return compared


def _centres(boxes: Sequence[SceneBox]) -> np.ndarray:
    """Centres from above, (N, 2), metres."""
    return np.array([item.box.center[:2] for item in boxes])


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
