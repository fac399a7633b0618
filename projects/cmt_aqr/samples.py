"""What messages call the samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.structures import BaseDataElement


def sample_names(samples: Sequence[BaseDataElement]) -> list[str]:
    """Token of each sample, or its index where the dataset gives no token."""
    names = []
    for sample in samples:
        metainfo = getattr(sample, 'metainfo', {})
        names.append(str(metainfo.get('token', metainfo.get('sample_idx', 'unnamed'))))
    return names
