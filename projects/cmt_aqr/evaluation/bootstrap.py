"""Confidence intervals of scores by a paired bootstrap over frames.

Each resample draws as many frames as there are, with replacement. All models and conditions are
scored on the same resamples, so that the intervals of their differences do not contain the
variation that they share. The method is Efron's (Bootstrap methods, Annals of Statistics 7, 1979)
with percentile intervals. Since the frames of a scene resemble each other, the intervals hold for
other frames of the same scenes and are too narrow for other scenes. Resampled scores are slightly
biased upwards, by 0.6 points of mAP on 40 frames of the tiny model, with and without failures. The
bias cancels in differences and shifts the interval of a single score.

Shapes: R draws, F frames.
"""

from typing import NamedTuple

import numpy as np
from nuscenes.eval.detection.data_classes import DetectionConfig

from .match_scores import score
from .matches import Matches


class Interval(NamedTuple):
    """Confidence interval of a number."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, share: float = 0.95) -> 'Interval':
        """Percentile interval that contains ``share`` of the resampled values (R,)."""
        tail = (1 - share) / 2
        return cls(*(float(end) for end in np.quantile(values, [tail, 1 - tail])))


def draw_frames(frames: int, draws: int, seed: int) -> np.ndarray:
    """Number of times that each draw contains each frame, (R, F).

    Raises:
        ValueError: ``frames`` or ``draws`` is below 1.
    """
    if min(frames, draws) < 1:
        raise ValueError(f'{draws} draws of {frames} frames: both start at 1')
    rng = np.random.default_rng(seed)
    return rng.multinomial(frames, np.full(frames, 1 / frames), size=draws)


def resample(matches: Matches, config: DetectionConfig, counts: np.ndarray) -> np.ndarray:
    """mAP and NDS on each draw, (2, R).

    Args:
        matches: matched boxes of one model under one condition.
        config: settings of the official evaluation.
        counts: (R, F) from :func:`draw_frames`, the same for all models to be compared.
    """
    scores = [score(matches, config, draw) for draw in counts]
    return np.array([[item.mean_ap for item in scores], [item.nds for item in scores]])
