"""Scores of models under sensor failures, relative to their scores without one.

The scores of a failure are averaged over its severities. The resilience ability RA is the NDS under
the failure divided by the NDS without one, and mRA its mean over all failures, as in MultiCorrupt
(Beemelmanns et al., arXiv 2402.11677).

Scores are arrays of mAP and NDS, (2,) for one evaluation or (2, R) for R resamples of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..datasets.failures.suite import Row
from ..health.alarm import Alarm
from .bootstrap import Interval
from .records import Record

CLEAN = 'clean'
MEAN = 'mean'


class Kept(NamedTuple):
    """Scores under one failure or averaged over several, each of shape () or (R,)."""

    mean_ap: np.ndarray
    nds: np.ndarray
    ra: np.ndarray


def kept_scores(scores: Mapping[str, np.ndarray], rows: Sequence[Row]) -> dict[str, Kept]:
    """Scores without a failure, under each, and the mean over all of them.

    Args:
        scores: (2, ...) mAP and NDS by the name of the condition.
        rows: failures, with the severities to average.

    Returns:
        Scores by ``clean``, by failure, and by ``mean``, whose ``ra`` is mRA.

    Raises:
        KeyError: a condition has no scores.
        ValueError: there are no failures.
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
    """The quotient; NaN where the denominator is 0, as for a model without any detection."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


class ScoredAlarm(NamedTuple):
    """Health of the sensors as an alarm, under one condition."""

    alarm: Alarm
    nds: float | None
    """NDS on the frames without an alarm; None if there are none"""


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """Results of one model under all conditions.

    Attributes:
        name: name in the tables.
        records: record of each condition, by the condition's name.
        kept: scores of shape (), see :func:`kept_scores`.
        draws: scores of all resamples, of shape (R,).
        alarms: alarm under each condition, by its name; empty without a health monitor.
    """

    name: str
    records: Mapping[str, Record]
    kept: Mapping[str, Kept]
    draws: Mapping[str, Kept]
    alarms: Mapping[str, ScoredAlarm] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results of several models under the same conditions, on the same frames.

    Attributes:
        models: results of the models; the first one is the baseline.
        rows: failures and their severities.
        frames: number of scored frames.
        seed: seed of the failures, of the choice of frames and of the bootstrap.
    """

    models: Sequence[ModelResult]
    rows: Sequence[Row]
    frames: int
    seed: int

    def difference(self, model: ModelResult, failure: str, score: str) -> 'Difference':
        """Score of a model minus that of the baseline.

        Args:
            model: a model other than the first.
            failure: name of a failure, ``clean`` or ``mean``.
            score: name of a field of :class:`Kept`.
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
