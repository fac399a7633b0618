"""Names of samples in messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmengine.structures import BaseDataElement


def sample_name(sample: BaseDataElement | Mapping) -> str:
    """Token of a sample, or its index in the dataset where there is no token.

    Args:
        sample: as a pipeline has it, or packed; anything else is unnamed.
    """
    meta = sample if isinstance(sample, Mapping) else getattr(sample, 'metainfo', {})
    return str(meta.get('token', meta.get('sample_idx', 'unnamed')))


def sample_names(samples: Iterable[BaseDataElement | Mapping]) -> list[str]:
    """Name of each sample."""
    return [sample_name(sample) for sample in samples]
