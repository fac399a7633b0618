"""What a pipeline found in the cache, on its way with the sample to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet3d.structures import Det3DDataSample

META_KEY = 'cached_features'


@dataclass(frozen=True)
class Lookup:
    """Of one sample and branch.

    The features themselves stay in their file: the process of the model maps it into memory, which
    is cheaper than to pass them on between processes.

    Attributes:
        key: of the sample, see :func:`.fingerprint.sample_key`.
        folder: where the pipeline found an entry and verified it; None if it loaded the sample.
        facts: what loading has added to the sample beside the data, to be kept with its features.
    """

    key: str
    folder: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def hit(self) -> bool:
        """Whether features are there, and the input is not."""
        return self.folder is not None


def lookups_of(samples: Sequence[Det3DDataSample] | None) -> dict[str, list[Lookup]]:
    """What was looked up for a batch: by branch, for each sample; nothing without a cache."""
    found = [sample.metainfo.get(META_KEY, {}) for sample in samples or ()]
    branches = {branch for lookups in found for branch in lookups}
    return {branch: [lookups[branch] for lookups in found] for branch in sorted(branches)}
