"""Results of one model on disk, one condition a file, so that a run can go on where it stopped.

Of every condition there are ``<condition>.json`` with the scores and what they were made of, and
beside it ``<condition>.predictions.npz`` and ``<condition>.matches.npz``. The JSON is written last:
where it is, the others are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import dump_json
from .frames_metric import Scored
from .matches import Matches

# Of what made a result: with another value of any of these it would be another result.
IDENTITY = ('config_sha256', 'checkpoint_sha256', 'frames_sha256', 'seed', 'failure')


@dataclass(frozen=True, kw_only=True)
class Record:
    """One model under one condition.

    Attributes:
        condition: its name.
        made_of: :data:`IDENTITY`, and what tells a reader more, such as paths and the commit.
        scores: ``mAP``, ``NDS``, the mean errors and the AP of each class.
        attention: where queries looked, by the names of ``RoutingLogHook``; empty for a model of
            one sensor.
    """

    condition: str
    made_of: dict[str, Any]
    scores: dict[str, float]
    attention: dict[str, float]


class Records:
    """The results of one model.

    Args:
        folder: of this model; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, condition: str, made_of: Mapping[str, Any]) -> Record | None:
        """The result of a condition; None where there is none, or one made of something else.

        Args:
            condition: its name.
            made_of: at least :data:`IDENTITY`.
        """
        path = self._path(condition, 'json')
        if not path.is_file():
            return None
        record = Record(**json.loads(path.read_text()))
        return record if same(record.made_of, made_of) else None

    def matches(self, condition: str) -> Matches:
        """The matches behind the scores."""
        return Matches.load(self._path(condition, 'matches.npz'))

    def write(self, record: Record, scored: Scored) -> None:
        """Write all three files; a reader never sees a part of one, nor a mixture."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # An older result must not be taken for one of these boxes.
        self._path(record.condition, 'json').unlink(missing_ok=True)
        scored.predictions.save(self._path(record.condition, 'predictions.npz'))
        scored.matches.save(self._path(record.condition, 'matches.npz'))
        dump_json(self._path(record.condition, 'json'), vars(record))

    def _path(self, condition: str, kind: str) -> Path:
        return self.folder / f'{condition}.{kind}'


def same(made_of: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results are of the same model, frames, seed and damage."""
    return hash_of([made_of.get(name) for name in IDENTITY]) == hash_of(
        [other[name] for name in IDENTITY]
    )


def hash_of(value: Any) -> str:
    """SHA-256 of plain data, such as a config, in a form that does not depend on its order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
