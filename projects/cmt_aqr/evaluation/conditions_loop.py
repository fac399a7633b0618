"""Test loop over several conditions, with one model."""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import LOOPS, TRANSFORMS
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import Runner, TestLoop
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset

from ..health import HealthMetric
from ..planning import PlanMetric
from ..running_hooks import unwrap
from .feature_memo import reused_features
from .records import Record, Records
from .robustness import CLEAN


@LOOPS.register_module()
class ConditionsLoop(TestLoop):
    """Tests under several conditions in few passes over the data, and writes their records.

    Conditions differ in the failure at the head of the test pipeline. A pass takes each batch of
    frames with sound sensors first and then under each condition, and the detector computes the
    features of a branch again only if its input has changed. Predictions are those of one test for
    each condition. The records of a pass are written when it is done.

    Args:
        runner: runner of the model.
        dataloader: config of the clean test.
        evaluator: config of a :class:`.frames_metric.FramesMetric`, and of a
            :class:`~projects.cmt_aqr.health.HealthMetric` or
            :class:`~projects.cmt_aqr.planning.PlanMetric` for a model with a monitor or a planner.
        conditions: config of the failure by the name of the condition; None for the clean test.
        folder: folder of the records.
        made_of: inputs shared by all records, see :data:`.records.IDENTITY`.
        conditions_per_pass: number of conditions that an interrupted test may lose, and whose
            predictions are in memory at the same time, about 0.1 GB each for 6,000 frames.
        fp16: as for ``TestLoop``.

    Attributes:
        condition: name of the condition that is scored, or a title of those that are tested.
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
        conditions_per_pass: int = 16,
        fp16: bool = False,
    ) -> None:
        # No worker of this loader ever starts: each pass has a loader of its own.
        super().__init__(runner, {**dataloader, 'persistent_workers': False}, evaluator, fp16)
        self.clean = self.dataloader
        self.conditions = conditions
        self.conditions_per_pass = conditions_per_pass
        self.records = Records(Path(folder))
        self.made_of = made_of

    def run(self) -> dict[str, dict[str, float]]:
        """Returns the metrics by the name of the condition."""
        names, metrics = iter(self.conditions), {}
        while some := [*itertools.islice(names, self.conditions_per_pass)]:
            print_log(f'Test under: {", ".join(some)}', logger='current')
            metrics.update(self._run_pass(some))
        return metrics

    def _run_pass(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        order = [CLEAN, *(name for name in names if name != CLEAN)]
        self.dataloader = _under_conditions(
            self.clean, [self.conditions[name] if name in names else None for name in order]
        )
        self.condition = names[0] if len(names) == 1 else f'{len(names)} conditions'
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        self.runner.model.eval()
        results = {name: [[] for _ in self._collectors()] for name in names}
        with reused_features(unwrap(self.runner.model)) as memos:
            for index, batch in enumerate(self.dataloader):
                name = order[index % len(order)]
                if name == CLEAN:
                    memos.clear()
                if name in names:
                    self._collect_into(results[name])
                    self.run_iter(index, batch)
                else:
                    self._extract_features(batch)
        metrics = {name: self._evaluate(name, results[name]) for name in names}
        self.runner.call_hook('after_test')
        return metrics

    def _collectors(self) -> list[Any]:
        """Objects that collect ``results``: metrics, and hooks such as ``RoutingLogHook``."""
        hooks = [hook for hook in self.runner.hooks if hasattr(hook, 'results')]
        return [*self.evaluator.metrics, *hooks]

    def _collect_into(self, results: Sequence[list]) -> None:
        for collector, own in zip(self._collectors(), results, strict=True):
            collector.results = own

    @torch.no_grad()
    def _extract_features(self, batch: Mapping) -> None:
        """Computes the features of sound sensors, whose predictions are known already."""
        model = unwrap(self.runner.model)
        with torch.autocast(model.data_preprocessor.device.type, enabled=self.fp16):
            model.extract_feat(model.data_preprocessor(batch, False)['inputs'])

    def _evaluate(self, name: str, results: Sequence[list]) -> dict[str, float]:
        """Metrics of a condition; the main process writes its record."""
        print_log(f'Scores under: {name}', logger='current')
        self.condition = name
        self._collect_into(results)
        metrics = self.evaluator.evaluate(len(self.clean.dataset))
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        if is_main_process():
            self._write(name, metrics)
        return metrics

    def _write(self, name: str, metrics: Mapping[str, float]) -> None:
        metric, *others = self.evaluator.metrics
        record = Record(
            condition=name,
            made_of={**self.made_of, 'failure': self.conditions[name]},
            scores=_with_prefix(metrics, f'{metric.prefix}/'),
            attention={key: value for key, value in metrics.items() if '/' not in key},
            plan=_with_prefix(metrics, f'{PlanMetric.default_prefix}/'),
        )
        health = next((m.reports for m in others if isinstance(m, HealthMetric)), None)
        self.records.write(record, metric.scored, health)


def _with_prefix(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Metrics whose names start with the prefix, by the last part of their names."""
    return {k.rpartition('/')[2]: v for k, v in metrics.items() if k.startswith(prefix)}


def with_failure(dataset: Dataset, failure: Mapping[str, Any] | None) -> Dataset:
    """Returns the dataset with the failure first in its pipeline; its samples are shared."""
    if failure is None:
        return dataset
    damaged = copy.copy(dataset)
    damaged.pipeline = Compose([TRANSFORMS.build(failure), *dataset.pipeline.transforms])
    return damaged


class _EachUnderAll(BatchSampler):
    """Batches of a concatenation of equally long datasets: each batch from all of them in turn."""

    def __init__(self, batches: BatchSampler, *, length: int, number: int) -> None:
        self.batches, self.length, self.number = batches, length, number

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            for dataset in range(self.number):
                yield [dataset * self.length + index for index in batch]

    def __len__(self) -> int:
        return len(self.batches) * self.number


def _under_conditions(
    clean: DataLoader, failures: Sequence[Mapping[str, Any] | None]
) -> DataLoader:
    """Data loader that yields each batch under every failure in turn."""
    datasets = [with_failure(clean.dataset, failure) for failure in failures]
    return DataLoader(
        ConcatDataset(datasets),
        batch_sampler=_EachUnderAll(
            clean.batch_sampler, length=len(clean.dataset), number=len(failures)
        ),
        num_workers=clean.num_workers,
        collate_fn=clean.collate_fn,
        worker_init_fn=clean.worker_init_fn,
        pin_memory=clean.pin_memory,
    )
