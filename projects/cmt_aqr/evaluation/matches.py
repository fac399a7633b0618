"""Matching of predicted boxes to the ground truth by the rule of the official evaluation.

The official evaluation visits the boxes of a class by descending confidence. Each is matched to the
nearest ground-truth box of its class and frame that has not been matched yet, and is a true
positive if that box is near enough. Frames are independent of each other, so one matching serves
any selection of frames with any multiplicities, see :mod:`.match_scores`.

Shapes: N predicted boxes, F frames, K classes, D distances at which boxes are matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import (
    attr_acc,
    center_distance,
    scale_iou,
    velocity_l2,
    yaw_diff,
)
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig

from ..files import replacing


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """All scored boxes of some frames, sorted by class and by descending confidence.

    Attributes:
        tokens: (F,) sample tokens.
        truths: (K, F) number of ground-truth boxes.
        label: (N,) class, an index into the classes of the official configuration.
        frame: (N,) index into the tokens.
        score: (N,) confidence.
        hit: (N, D) whether the box is a true positive at each distance.
        errors: (N, 5) errors in the order of ``TP_METRICS`` of true positives at the distance at
            which the official evaluation computes errors; NaN for other boxes and for properties
            that the ground-truth box lacks.
    """

    tokens: np.ndarray
    truths: np.ndarray
    label: np.ndarray
    frame: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, truth: EvalBoxes, predicted: EvalBoxes, config: DetectionConfig) -> 'Matches':
        """Match boxes that have passed the official filters.

        Args:
            truth: ground truth; its samples, in their order, are the frames.
            predicted: predicted boxes of the same samples.
            config: settings of the official evaluation.

        Raises:
            ValueError: the samples differ.
        """
        frames = {token: index for index, token in enumerate(truth.sample_tokens)}
        if frames.keys() != set(predicted.sample_tokens):
            raise ValueError(
                f'{len(frames)} samples have true boxes, {len(predicted.sample_tokens)} samples '
                'have predicted ones, and they are not the same; every frame needs a list of boxes'
            )
        parts = [
            _match_class(truth, predicted, name, label, frames, config)
            for label, name in enumerate(config.class_names)
        ]
        columns = {
            name: np.concatenate([part[name] for part in parts])
            for name in ('label', 'frame', 'score', 'hit', 'errors')
        }
        truths = np.stack([part['truths'] for part in parts])
        return cls(tokens=np.array(list(frames)), truths=truths, **columns)

    def save(self, path: Path) -> None:
        """Write a compressed file; its name must end in ``.npz``."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **columns)

    @classmethod
    def load(cls, path: Path) -> 'Matches':
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


def _match_class(
    truth: EvalBoxes,
    predicted: EvalBoxes,
    name: str,
    label: int,
    frames: dict[str, int],
    config: DetectionConfig,
) -> dict[str, np.ndarray]:
    """Attributes of :class:`Matches` for one class, with ``truths`` of shape (F,)."""
    boxes = [box for box in predicted.all if box.detection_name == name]
    # Among equal scores the last box comes first, as in the official evaluation.
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i].detection_score, i), reverse=True)
    boxes = [boxes[index] for index in order]
    frame = np.array([frames[box.sample_token] for box in boxes], dtype=np.int32)

    truths = np.zeros(len(frames), dtype=np.int32)
    hit = np.zeros((len(boxes), len(config.dist_ths)), dtype=bool)
    errors = np.full((len(boxes), 5), np.nan, dtype=np.float64)
    at = config.dist_ths.index(config.dist_th_tp)
    ends = np.bincount(frame, minlength=len(frames)).cumsum()
    rows_by_frame = np.split(frame.argsort(kind='stable'), ends[:-1])
    for token, rows in zip(frames, rows_by_frame, strict=True):
        targets = [box for box in truth[token] if box.detection_name == name]
        truths[frames[token]] = len(targets)
        if targets and rows.size:
            found = _centres([boxes[row] for row in rows])
            taken = match_centres(_centres(targets), found, config.dist_ths)
            hit[rows] = taken >= 0
            for row, target in zip(rows, taken[:, at], strict=True):
                if target >= 0:
                    errors[row] = _errors(targets[target], boxes[row])

    return {
        'truths': truths,
        'label': np.full(len(boxes), label, dtype=np.int8),
        'frame': frame,
        'score': np.array([box.detection_score for box in boxes], dtype=np.float64),
        'hit': hit,
        'errors': errors,
    }


def match_centres(
    truth: np.ndarray, predicted: np.ndarray, distances: Sequence[float]
) -> np.ndarray:
    """Index of the ground-truth box matched to each predicted box at each distance, (n, D).

    It is -1 for a box without a match.

    Args:
        truth: (m, 2) centres of the ground truth of one class and frame, metres; m is at least 1.
        predicted: (n, 2) centres of the predicted boxes, by descending confidence.
        distances: D distances at which boxes are matched, metres.
    """
    apart = np.linalg.norm(predicted[:, None] - truth, axis=-1)
    thresholds = np.array(distances)
    free = np.ones((len(thresholds), len(truth)), dtype=bool)
    taken = np.full((len(predicted), len(thresholds)), -1)
    for row in np.flatnonzero(apart.min(axis=1) < thresholds.max()):
        candidates = np.where(free, apart[row], np.inf)
        nearest = candidates.argmin(axis=1)
        hits = np.flatnonzero(candidates.min(axis=1) < thresholds)
        taken[row, hits] = nearest[hits]
        free[hits, nearest[hits]] = False
    return taken


def _centres(boxes: Sequence[DetectionBox]) -> np.ndarray:
    """Centres of boxes in the global frame, (n, 2), metres."""
    return np.array([box.translation[:2] for box in boxes])


def _errors(truth: DetectionBox, box: DetectionBox) -> tuple[float, ...]:
    """Translation, scale, orientation, velocity and attribute error, computed by the devkit."""
    # The official evaluation does not distinguish the two ends of a barrier.
    period = np.pi if truth.detection_name == 'barrier' else 2 * np.pi
    return (
        center_distance(truth, box),
        1 - scale_iou(truth, box),
        yaw_diff(truth, box, period=period),
        velocity_l2(truth, box),
        1 - attr_acc(truth, box),
    )
