"""Predicted boxes as compact arrays on disk, for scoring without running the model again.

Shapes: N boxes, F frames.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES, DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox

from ..files import replacing

_ATTRIBUTES = ('', *ATTRIBUTE_NAMES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Predicted boxes of some frames, in nuScenes' global frame.

    Attributes:
        tokens: (F,) sample tokens, including those of frames without boxes.
        frame: (N,) index into the tokens.
        translation: (N, 3) centres, metres, in double precision since maps are kilometres wide.
        size: (N, 3) width, length and height, metres.
        rotation: (N, 4) quaternions w, x, y, z.
        velocity: (N, 2) metres per second.
        score: (N,) confidence.
        name: (N,) index into ``DETECTION_NAMES``.
        attribute: (N,) index into ``ATTRIBUTE_NAMES`` plus 1; 0 for no attribute.
    """

    tokens: np.ndarray
    frame: np.ndarray
    translation: np.ndarray
    size: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    score: np.ndarray
    name: np.ndarray
    attribute: np.ndarray

    @classmethod
    def of(cls, boxes: EvalBoxes) -> 'Predictions':
        """Arrays of the devkit's boxes, in the same order."""
        frames = {token: index for index, token in enumerate(boxes.sample_tokens)}
        every = boxes.all

        def column(values: list, width: int, kind: type) -> np.ndarray:
            return np.array(values, dtype=kind).reshape(len(every), width)

        return cls(
            tokens=np.array(list(frames)),
            frame=np.array([frames[box.sample_token] for box in every], dtype=np.int32),
            translation=column([box.translation for box in every], 3, np.float64),
            size=column([box.size for box in every], 3, np.float32),
            rotation=column([box.rotation for box in every], 4, np.float32),
            velocity=column([box.velocity for box in every], 2, np.float32),
            score=np.array([box.detection_score for box in every], dtype=np.float32),
            name=np.array(
                [DETECTION_NAMES.index(box.detection_name) for box in every], dtype=np.int8
            ),
            attribute=np.array(
                [_ATTRIBUTES.index(box.attribute_name) for box in every], dtype=np.int8
            ),
        )

    def boxes(self) -> EvalBoxes:
        """The predictions as the devkit's boxes."""
        boxes = EvalBoxes()
        for token in self.tokens:
            boxes.add_boxes(str(token), [])
        for index, frame in enumerate(self.frame):
            token = str(self.tokens[frame])
            box = DetectionBox(
                sample_token=token,
                translation=tuple(self.translation[index].tolist()),
                size=tuple(self.size[index].tolist()),
                rotation=tuple(self.rotation[index].tolist()),
                velocity=tuple(self.velocity[index].tolist()),
                detection_name=DETECTION_NAMES[self.name[index]],
                detection_score=float(self.score[index]),
                attribute_name=_ATTRIBUTES[self.attribute[index]],
            )
            boxes.add_boxes(token, [box])
        return boxes

    def save(self, path: Path) -> None:
        """Write a compressed file; its name must end in ``.npz``."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **columns)

    @classmethod
    def load(cls, path: Path) -> 'Predictions':
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)
