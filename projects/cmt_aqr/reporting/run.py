"""What a run, or the runs of a work dir, wrote: provenance, scores, curves, routing, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.score_table import sort_scores
from ..usage_error import UsageError

RUN_INFO = 'run_info.json'
PICTURES = ('.jpg', '.jpeg', '.png')


@dataclass(frozen=True)
class Run:
    """Files of one or several runs; of several runs, each part is read from the latest with it.

    Attributes:
        folder: where pictures and results under failures are searched.
        runs: folders of the runs, each with its ``run_info.json``, oldest first.
    """

    folder: Path
    runs: Sequence[Path]

    def info(self) -> dict:
        """Provenance of the latest training, or of the latest run if none trained."""
        trained = [run for run in self.runs if _trained(run)]
        return _read((trained or self.runs)[-1] / RUN_INFO)

    def scores(self) -> dict | None:
        """The latest scores: ``phase``, ``iteration``, ``overall``, and ``classes`` by name."""
        entries = [entry for run in self.runs for entry in _read(run / RUN_INFO)['scores']]
        sorted_ = [_sort_entry(entry) for entry in entries]
        return next((entry for entry in reversed(sorted_) if 'mAP' in entry['overall']), None)

    def audit(self) -> dict | None:
        """Content of ``freeze_audit.json``."""
        path = self._latest('freeze_audit.json')
        return path and _read(path)

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """(iteration, value) of every number that training logged, by its name."""
        training = [run for run in self.runs if _trained(run)]
        curves: dict[str, list] = {}
        for line in _lines(training[-1] / 'vis_data' / 'scalars.json') if training else []:
            if 'loss' in line:  # validations count their lines otherwise
                for name, value in line.items():
                    curves.setdefault(name, []).append((line['step'], value))
        return curves

    def routing(self) -> list[dict]:
        """Lines of ``routing.jsonl``."""
        path = self._latest('routing.jsonl')
        return _lines(path) if path else []

    def robustness(self) -> dict | None:
        """Content of the latest ``robustness.json`` anywhere in the folder."""
        found = sorted(self.folder.rglob('robustness.json'), key=lambda path: path.stat().st_mtime)
        return _read(found[-1]) if found else None

    def pictures(self) -> list[Path]:
        """Every picture in the folder, except plots of robustness, which the page draws anew."""
        found = (path for path in self.folder.rglob('*') if path.suffix.lower() in PICTURES)
        return sorted(path for path in found if path.stem != 'robustness')

    def config(self) -> str | None:
        """The full config as it was run."""
        path = self._latest('vis_data/config.py')
        return path and path.read_text()

    def _latest(self, name: str) -> Path | None:
        return next((run / name for run in reversed(self.runs) if (run / name).is_file()), None)


def find_run(path: Path) -> Run:
    """The run of a folder with a ``run_info.json``, or all runs of a work dir.

    Raises:
        UsageError: there is none.
    """
    if (path / RUN_INFO).is_file():
        return Run(path, [path])
    runs = sorted(file.parent for file in path.glob(f'*/{RUN_INFO}'))
    if not runs:
        raise UsageError(
            f'{path} has no {RUN_INFO}, and no folder with one; give the work dir of '
            'tools/train.py or tools/test.py, or the folder of one run in it'
        )
    return Run(path, runs)


def _trained(run: Path) -> bool:
    return any('loss' in line for line in _lines(run / 'vis_data' / 'scalars.json'))


def _sort_entry(entry: Mapping[str, Any]) -> dict:
    """Scores of a validation or test, with ``classes``: AP (mean over distances) and errors."""
    overall, classes = sort_scores(entry)
    return {
        'phase': overall.pop('phase'),
        'iteration': overall.pop('iteration'),
        'overall': overall,
        'classes': classes,
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
