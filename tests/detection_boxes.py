"""Made-up true and predicted boxes for tests of scores."""

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox

CONFIG = config_factory('detection_cvpr_2019')
# Without construction vehicles: a class that is predicted, but not there.
TRUE_CLASSES = [name for name in DETECTION_NAMES if name != 'construction_vehicle']
ATTRIBUTES = {'car': 'vehicle.moving', 'pedestrian': 'pedestrian.standing', 'bicycle': ''}


def random_scene(
    frames: int, *, seed: int = 0, noise: float = 0.8, true_seed: int = 0
) -> tuple[EvalBoxes, EvalBoxes]:
    """True and predicted boxes of some frames; the predictions get worse with the noise.

    Some objects are missed, some boxes are of the wrong class or of nothing; one true box in ten
    has no known velocity, and one class has no attributes.

    Args:
        frames: how many; the last has no predictions.
        seed: of the predictions.
        noise: standard deviation of the positions, metres.
        true_seed: of the true boxes.
    """
    truth, predicted = EvalBoxes(), EvalBoxes()
    true_rng, rng = np.random.default_rng(true_seed), np.random.default_rng(seed)
    for index in range(frames):
        token = f'frame{index:03}'
        there = [_true_box(token, true_rng) for _ in range(12)]
        found = [_found_box(box, noise, rng) for box in there if rng.random() < 0.85]
        found += [_found_box(_true_box(token, rng), noise, rng) for _ in range(6)]
        truth.add_boxes(token, there)
        predicted.add_boxes(token, found if index < frames - 1 else [])
    return truth, predicted


def _true_box(token: str, rng: np.random.Generator) -> DetectionBox:
    name = str(rng.choice(TRUE_CLASSES))
    return DetectionBox(
        sample_token=token,
        translation=(*rng.uniform(-8, 8, 2), 0.0),
        size=tuple(rng.uniform(0.5, 4, 3)),
        rotation=_yaw(rng.uniform(-np.pi, np.pi)),
        velocity=tuple(rng.normal(0, 2, 2)) if rng.random() < 0.9 else (np.nan, np.nan),
        detection_name=name,
        attribute_name=ATTRIBUTES.get(name, 'vehicle.parked'),
    )


def _found_box(box: DetectionBox, noise: float, rng: np.random.Generator) -> DetectionBox:
    wrong = rng.random() < 0.15
    return DetectionBox(
        sample_token=box.sample_token,
        translation=(*(box.translation[:2] + rng.normal(0, noise, 2)), 0.0),
        size=tuple(box.size * rng.uniform(0.7, 1.4, 3)),
        rotation=_yaw(rng.uniform(-np.pi, np.pi)),
        velocity=tuple(rng.normal(0, 2, 2)),
        detection_name=str(rng.choice(DETECTION_NAMES)) if wrong else box.detection_name,
        detection_score=float(rng.random()),
        attribute_name='vehicle.moving' if rng.random() < 0.5 else box.attribute_name,
    )


def _yaw(angle: float) -> tuple[float, float, float, float]:
    return (float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2)))
