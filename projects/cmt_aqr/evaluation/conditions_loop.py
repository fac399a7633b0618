"""Test loop over several conditions, with one model."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet3d.registry import LOOPS
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import Runner, TestLoop

from .records import Record, Records


@LOOPS.register_module()
class ConditionsLoop(TestLoop):
    """Runs the test once for every condition, and writes its record when it is done.

    Conditions differ in the failure at the head of the test pipeline.

    Args:
        runner: runner of the model.
        dataloader: config of the clean test.
        evaluator: config of a :class:`.frames_metric.FramesMetric`, and of a
            :class:`~projects.cmt_aqr.health.HealthMetric` for a model with a health monitor.
        conditions: config of the failure by the name of the condition; None for the clean test.
        folder: folder of the records.
        made_of: inputs shared by all records, see :data:`.records.IDENTITY`.
        fp16: as for ``TestLoop``.

    Attributes:
        condition: name of the condition that is being tested.
    """

    condition = ''

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        evaluator: Evaluator | Mapping[str, Any],
        *,
        conditions: Mapping[str, Mapping[str, Any] | None],
        folder: str,
        made_of: Mapping[str, Any],
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, with_failure(dataloader, None), evaluator, fp16)
        self.clean = dataloader
        self.conditions = conditions
        self.records = Records(Path(folder))
        self.made_of = made_of

    def run(self) -> dict[str, dict[str, float]]:
        """Returns the metrics by the name of the condition."""
        return {name: self._run(name, failure) for name, failure in self.conditions.items()}

    def _run(self, name: str, failure: Mapping[str, Any] | None) -> dict[str, float]:
        self.condition = name
        print_log(f'Test under: {name}', logger='current')
        self.dataloader = self.runner.build_dataloader(
            with_failure(self.clean, failure), seed=self.runner.seed
        )
        metrics = super().run()
        if is_main_process():
            self._write(name, failure, metrics)
        return metrics

    def _write(
        self, name: str, failure: Mapping[str, Any] | None, metrics: Mapping[str, float]
    ) -> None:
        metric, *health = self.evaluator.metrics
        # Metrics of the evaluator have the name of the metric as a prefix, metrics of hooks do not.
        prefix = f'{metric.prefix}/'
        scores = {k.rpartition('/')[2]: v for k, v in metrics.items() if k.startswith(prefix)}
        attention = {key: value for key, value in metrics.items() if '/' not in key}
        record = Record(
            condition=name,
            made_of={**self.made_of, 'failure': failure},
            scores=scores,
            attention=attention,
        )
        self.records.write(record, metric.scored, health[0].reports if health else None)


def with_failure(dataloader: Mapping[str, Any], failure: Mapping[str, Any] | None) -> dict:
    """Returns the dataloader's config with the failure first in its pipeline.

    Its workers are not persistent, since the next condition has its own.
    """
    dataloader = copy.deepcopy(dict(dataloader))
    dataloader['persistent_workers'] = False
    if failure is not None:
        dataloader['dataset']['pipeline'].insert(0, dict(failure))
    return dataloader
