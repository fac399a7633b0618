"""What a model keeps of its score when sensors fail.

Of each failure the scores of its severities are averaged first. RA, the resilience ability, is then
the NDS under the failure over the NDS without one, and mRA its mean over the failures, as in
MultiCorrupt (Beemelmanns et al., arXiv 2402.11677).

Scores are arrays (2, ...) of mAP and NDS: of one evaluation (2,), or of R resamples of it (2, R).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..datasets.failures.suite import Row
from .bootstrap import Interval
from .records import Record

CLEAN = 'clean'
MEAN = 'mean'


class Kept(NamedTuple):
    """Scores under one failure or several, of shape () or (R,)."""

    mean_ap: np.ndarray
    nds: np.ndarray
    ra: np.ndarray


def kept_scores(scores: Mapping[str, np.ndarray], rows: Sequence[Row]) -> dict[str, Kept]:
    """Scores without a failure, under each, and the mean over all of them.

    Args:
        scores: (2, ...) mAP and NDS of each condition by its name.
        rows: the failures, and which of their severities are averaged.

    Returns:
        By ``clean``, each failure, and ``mean``, whose ``ra`` is mRA.

    Raises:
        KeyError: a condition, or the clean one, was not scored.
        ValueError: no failures.
    """
    if not rows:
        raise ValueError('no failures: there is nothing to average')
    clean = scores[CLEAN]
    kept = {CLEAN: Kept(*clean, ra=np.ones_like(clean[1]))}
    for row in rows:
        mean_ap, nds = np.mean([scores[name] for name in row.conditions], axis=0)
        kept[row.name] = Kept(mean_ap, nds, _ratio(nds, clean[1]))
    every = [np.stack(kept[row.name]) for row in rows]
    kept[MEAN] = Kept(*np.mean(every, axis=0))
    return kept


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the whole is 0, as of a model that never finds anything."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model under all conditions.

    Attributes:
        name: by which it is reported.
        records: of each condition, by its name.
        kept: scores (); see :func:`kept_scores`.
        draws: the same of every resample (R,).
    """

    name: str
    records: Mapping[str, Record]
    kept: Mapping[str, Kept]
    draws: Mapping[str, Kept]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several models under the same conditions, on the same frames.

    Attributes:
        models: the first is the one that the others are held against.
        rows: the failures and their severities.
        frames: number of frames scored.
        seed: of the failures, the choice of frames and the bootstrap.
    """

    models: Sequence[ModelResult]
    rows: Sequence[Row]
    frames: int
    seed: int

    def difference(self, model: ModelResult, failure: str, score: str) -> 'Difference':
        """How much better a model is than the first.

        Args:
            model: one of the others.
            failure: or ``clean`` or ``mean``.
            score: a field of :class:`Kept`.
        """
        first = self.models[0]
        change, draws = (
            getattr(ours[failure], score) - getattr(theirs[failure], score)
            for ours, theirs in ((model.kept, first.kept), (model.draws, first.draws))
        )
        return Difference(float(change), Interval.of(draws))


class Difference(NamedTuple):
    """A difference between two models, with the 95 % interval of a paired bootstrap."""

    value: float
    interval: Interval
