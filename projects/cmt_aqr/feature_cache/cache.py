"""The model's side of the cache: features of a batch from their files, and new ones into files.

Shapes: B samples of a batch, of which M are missing in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional

from .lookup import Lookup
from .store import Entry, FeatureStore, kept


class FixedPart(NamedTuple):
    """The stages of a branch whose outputs are cached.

    Attributes:
        stages: how many, from the input on.
        folder: of the store; its name holds the digest of everything but the sample.
    """

    stages: int
    folder: str


class FeatureCache:
    """What a detector with a cache asks for features.

    Features that are computed now are rounded as those on disk are, so that a run does not depend
    on what happens to be cached.

    Args:
        store: of the entries.
        parts: what is cached of each branch; a branch that is not named is computed as ever.

    Attributes:
        parts: as given.
        counts: samples by (branch, 'read' or 'computed'), since :meth:`log_counts`.
    """

    def __init__(self, store: FeatureStore, parts: Mapping[str, FixedPart]) -> None:
        self.store = store
        self.parts = dict(parts)
        self.counts: dict[tuple[str, str], int] = {}

    def num_stages(self, branch: str) -> int:
        """How many stages of a branch are cached."""
        return self.parts[branch].stages if branch in self.parts else 0

    def complete(
        self,
        branch: str,
        lookups: Sequence[Lookup],
        compute: Callable[[], Sequence[Tensor]],
        *,
        device: torch.device,
    ) -> list[Tensor]:
        """Feature maps (B, ...) of a batch.

        Args:
            branch: one of `parts`.
            lookups: of the B samples.
            compute: gives the maps (M, ...) of the samples that are missing, in their order. Called
                only if there are any, without gradient and in full precision.
            device: of the result.

        Raises:
            FileNotFoundError: an entry has been deleted since it was found.
            ValueError: maps of different shapes.
        """
        missing = [lookup for lookup in lookups if not lookup.hit]
        self._count(branch, 'computed', len(missing))
        self._count(branch, 'read', len(lookups) - len(missing))
        fresh = iter(self._compute(branch, missing, compute, device) if missing else ())
        samples = [self._read(lookup, device) if lookup.hit else next(fresh) for lookup in lookups]
        return [_stack(maps) for maps in zip(*samples, strict=True)]

    def log_counts(self) -> None:
        """Log how many samples were read and computed since the last time."""
        if self.counts:
            text = ', '.join(
                f'{branch} {self.counts.get((branch, "read"), 0)} read and '
                f'{self.counts.get((branch, "computed"), 0)} computed'
                for branch in self.parts
            )
            print_log(f'feature cache: {text}', logger='current')
        self.counts.clear()

    def _compute(
        self,
        branch: str,
        missing: Sequence[Lookup],
        compute: Callable[[], Sequence[Tensor]],
        device: torch.device,
    ) -> list[list[Tensor]]:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            batch = compute()
        samples = []
        for index, lookup in enumerate(missing):
            views = lookup.facts.get('num_views')  # a sample may have fewer than the batch
            # In the layout of the file too: kernels of another layout round otherwise.
            maps = [kept(m[index, :views], self.store.dtype).contiguous() for m in batch]
            self.store.write(self.parts[branch].folder, lookup.key, Entry(maps, lookup.facts))
            samples.append([m.float() for m in maps])
        return samples

    def _read(self, lookup: Lookup, device: torch.device) -> list[Tensor]:
        # Verified when it was looked up, by a worker.
        entry = self.store.read(lookup.folder, lookup.key, verify=False)
        if entry is None:
            raise FileNotFoundError(
                f'{self.store.path(lookup.folder, lookup.key)} was deleted while a run was using it'
            )
        return [m.to(device).float() for m in entry.maps]

    def _count(self, branch: str, what: str, samples: int) -> None:
        self.counts[branch, what] = self.counts.get((branch, what), 0) + samples


def _stack(maps: Sequence[Tensor]) -> Tensor:
    """(...) of each sample -> (B, ...); views that a sample lacks are zero.

    Raises:
        ValueError: the shapes differ otherwise.
    """
    most = max(len(m) for m in maps)
    shapes = [tuple(m.shape) for m in maps]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(
            f'cached features of one batch have different shapes: {shapes}; a pipeline must give '
            'all images one size, as ResizeCropFlipImage does'
        )
    padding = (0, 0) * (maps[0].dim() - 1)
    return torch.stack([functional.pad(m, (*padding, 0, most - len(m))) for m in maps])
