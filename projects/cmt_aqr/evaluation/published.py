"""RA of the released CMT on nuScenes as published, to hold other models and data against.

RA is the NDS under a failure, averaged over severities, over the NDS without one. A model on other
data says something about the road only as far as it loses there what CMT loses on nuScenes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .records import Record
from .robustness import CLEAN

MOME = 'MoME (Park et al., CVPR 2025)'
MULTICORRUPT = 'MultiCorrupt (Beemelmanns et al., IV 2024), the table of its repository'


@dataclass(frozen=True)
class PublishedRA:
    """RA of CMT under one failure.

    Attributes:
        failure: name of the failure in the protocols of this project.
        severities: severities of this project that correspond to it.
        ra: published value.
        source: where it is published.
    """

    failure: str
    severities: tuple[int, ...]
    ra: float
    source: str

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions that are averaged."""
        return tuple(f'{self.failure}_{severity}' for severity in self.severities)

    def of(self, records: Mapping[str, Record]) -> float | None:
        """RA of a model by its records; None without every condition, or with a clean NDS of 0."""
        names = (CLEAN, *self.conditions)
        if not all(name in records for name in names):
            return None
        clean, *failed = (records[name].scores['NDS'] for name in names)
        return float(np.mean(failed)) / clean if clean else None


CMT_ON_NUSCENES = (
    PublishedRA('lidar_drop', (1,), 0.61, MOME),
    PublishedRA('limited_fov', (2,), 0.74, MOME),
    PublishedRA('view_drop', (1,), 0.93, MOME),
    PublishedRA('camera_loss', (1, 2, 3), 0.97, MULTICORRUPT),
    PublishedRA('beam_reduction', (1, 2, 3), 0.79, MULTICORRUPT),
    PublishedRA('fog', (1, 2, 3), 0.81, MULTICORRUPT),
    PublishedRA('stale_sensors', (1, 2, 3), 0.79, MULTICORRUPT),
    PublishedRA('occlusion', (2,), 0.96, MOME),
)
