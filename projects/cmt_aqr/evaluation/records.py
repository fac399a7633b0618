"""Results of one model on disk, by condition, so that an interrupted run can be resumed.

Each condition has ``<condition>.json`` with the scores and the facts that identify them,
``<condition>.predictions.npz`` and ``<condition>.matches.npz``, and for a model with a health
monitor ``<condition>.health.npz``. The JSON file is written last, so it exists only together with
the others.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import dump_json
from ..health.alarm import Reports
from .frames_metric import Scored
from .matches import Matches

# Facts on which a result depends, and what a message calls them.
IDENTITY = {
    'config_sha256': 'config',
    'checkpoint_sha256': 'checkpoint',
    'frames_sha256': 'frames',
    'seed': 'seed',
    'dtype': 'precision',
    'failure': 'failure',
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result of one model under one condition.

    Attributes:
        condition: name of the condition.
        made_of: those of :data:`IDENTITY`, and facts for the reader such as paths and the commit.
        scores: ``mAP``, ``NDS``, the mean errors and the AP of each class.
        attention: shares of attention, by the names of ``RoutingLogHook``; empty for a model with
            one sensor.
        plan: scores of ``PlanMetric``; empty for a model without a planner.
    """

    condition: str
    made_of: dict[str, Any]
    scores: dict[str, float]
    attention: dict[str, float]
    plan: dict[str, float] = field(default_factory=dict)


class Records:
    """Reads and writes the results of one model.

    Args:
        folder: folder of this model, created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, condition: str, made_of: Mapping[str, Any]) -> Record | None:
        """Record of a condition; None if there is none or its identity differs.

        Args:
            condition: name of the condition.
            made_of: at least the facts of :data:`IDENTITY`.
        """
        record = self._record(condition)
        return None if record is None or differences(record.made_of, made_of) else record

    def changed(self, condition: str, made_of: Mapping[str, Any]) -> list[str]:
        """Names of the facts that differ from the record of a condition; empty without a record.

        Arguments are those of :meth:`read`.
        """
        record = self._record(condition)
        return [] if record is None else differences(record.made_of, made_of)

    def _record(self, condition: str) -> Record | None:
        path = self._path(condition, 'json')
        return Record(**json.loads(path.read_text())) if path.is_file() else None

    def matches(self, condition: str) -> Matches:
        """Matched boxes from which the scores of a condition were computed."""
        return Matches.load(self._path(condition, 'matches.npz'))

    def health(self, condition: str) -> Reports | None:
        """Health that was reported under a condition; None for a model without a monitor."""
        path = self._path(condition, 'health.npz')
        return Reports.load(path) if path.is_file() else None

    def write(self, record: Record, scored: Scored, health: Reports | None = None) -> None:
        """Write all files; a reader never sees part of a file or files of two results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Old scores must not stand beside new boxes.
        self._path(record.condition, 'json').unlink(missing_ok=True)
        scored.predictions.save(self._path(record.condition, 'predictions.npz'))
        scored.matches.save(self._path(record.condition, 'matches.npz'))
        if health is not None:
            health.save(self._path(record.condition, 'health.npz'))
        dump_json(self._path(record.condition, 'json'), vars(record))

    def _path(self, condition: str, kind: str) -> Path:
        return self.folder / f'{condition}.{kind}'


def differences(made_of: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs between two results, of model, frames, seed, precision and failure."""
    return [
        word
        for name, word in IDENTITY.items()
        if hash_of(made_of.get(name)) != hash_of(other[name])
    ]


def hash_of(value: Any) -> str:
    """SHA-256 of plain data such as a config, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
