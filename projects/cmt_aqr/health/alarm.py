"""Reported health as an alarm: how well it separates damaged sensors from sound ones.

Shapes: F frames, V cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from ..files import replacing

DETECTION = 0.95
"""Share of damaged inputs that an alarm must find when its false alarms are counted."""
FALSE_ALARMS = 0.01
"""Share of sound frames at which :func:`threshold` raises an alarm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reports:
    """Reported and true health of some frames; frames with fewer cameras have NaN.

    Attributes:
        tokens: (F,) sample tokens.
        names: (V,) names of the cameras.
        lidar: (F,) reported health of the LiDAR.
        cameras: (F, V) reported health of each camera.
        lidar_sound: (F,) 1 where nothing is wrong with the LiDAR, 0 elsewhere; NaN if unknown.
        cameras_sound: (F, V) the same for each camera.
    """

    tokens: np.ndarray
    names: np.ndarray
    lidar: np.ndarray
    cameras: np.ndarray
    lidar_sound: np.ndarray
    cameras_sound: np.ndarray

    @property
    def worst_camera(self) -> np.ndarray:
        """(F,): reported health of the camera with the lowest."""
        return np.nanmin(self.cameras, axis=1, initial=1)

    @property
    def worst(self) -> np.ndarray:
        """(F,): reported health of the sensor with the lowest."""
        return np.minimum(self.lidar, self.worst_camera)

    def save(self, path: Path) -> None:
        """Write a compressed file; its name must end in ``.npz``."""
        with replacing(path) as temporary:
            columns = {item.name: getattr(self, item.name) for item in fields(self)}
            np.savez_compressed(temporary, **columns)

    @classmethod
    def load(cls, path: Path) -> Reports:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


class Separation(NamedTuple):
    """How well health separates damaged inputs from sound ones."""

    auroc: float
    """probability that a damaged input has a lower health than a sound one"""
    false_alarms: float
    """share of sound inputs below the threshold that finds :data:`DETECTION` of the damaged"""


class Alarm(NamedTuple):
    """Alarm under one failure; ``None`` where the failure damages no such sensor."""

    lidar: Separation | None
    """LiDAR of damaged frames against that of sound frames"""
    cameras: Separation | None
    """worst camera of damaged frames against that of sound frames"""
    one_camera: Separation | None
    """damaged cameras against the others of the same frames"""
    alarmed: float
    """share of all frames with an alarm at :func:`threshold`"""


def separation(sound: np.ndarray, damaged: np.ndarray) -> Separation | None:
    """Separation of the health of sound and of damaged inputs; ``None`` without one of them."""
    if not len(sound) or not len(damaged):
        return None
    ranks = rankdata(np.concatenate([damaged, sound]))[: len(damaged)]
    above = ranks.sum() - len(damaged) * (len(damaged) + 1) / 2  # pairs with the sound one lower
    limit = np.quantile(damaged, DETECTION, method='inverted_cdf')
    return Separation(
        float(1 - above / (len(damaged) * len(sound))), float((sound <= limit).mean())
    )


def threshold(clean: Reports) -> float:
    """Health below which :data:`FALSE_ALARMS` of the sound frames lie."""
    return float(np.quantile(clean.worst, FALSE_ALARMS))


def alarm(clean: Reports, failed: Reports) -> Alarm:
    """How the reports of a failure differ from those without one.

    Args:
        clean: of sound frames.
        failed: under the failure, with the true health.
    """
    lidar_hit = failed.lidar_sound == 0
    camera_hit = (failed.cameras_sound == 0).any(axis=1)
    partly = failed.cameras_sound[camera_hit]
    reported = failed.cameras[camera_hit]
    return Alarm(
        lidar=separation(clean.lidar, failed.lidar[lidar_hit]),
        cameras=separation(clean.worst_camera, failed.worst_camera[camera_hit]),
        one_camera=separation(reported[partly == 1], reported[partly == 0]),
        alarmed=float((failed.worst < threshold(clean)).mean()),
    )


def mean_auroc(alarms: Sequence[Alarm]) -> float:
    """Mean over all failures and the sensors that each damages; NaN without any."""
    found = [part.auroc for item in alarms for part in (item.lidar, item.cameras) if part]
    return float(np.mean(found)) if found else float('nan')
