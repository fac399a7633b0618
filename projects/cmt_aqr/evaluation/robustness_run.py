"""Test of one model under all conditions that have no result yet."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from nuscenes.eval.detection.data_classes import DetectionConfig

from ..cli.checkpoints import check_fit
from ..cli.processes import build_runner, start_cpu_processes
from ..datasets.failures.suite import Row
from ..datasets.infos import Infos, read_infos
from ..health.alarm import alarm, threshold
from ..hooks.run_info_hook import code_version
from ..inference import fold_for_inference
from ..progress import Progress
from ..usage_error import UsageError
from .bootstrap import draw_frames, resample
from .conditions import conditions_of
from .match_scores import score
from .official import official_config
from .records import Record, Records, hash_of, hash_of_file
from .robustness import CLEAN, ModelResult, ScoredAlarm, kept_scores


@dataclass(frozen=True, kw_only=True)
class ModelRun:
    """A model, the frames it is tested on, and the folder of its results.

    Attributes:
        name: name in the tables.
        cfg: config of the test.
        checkpoint: file or URL of the weights.
        folder: folder for records and logs.
        indices: indices of frames in the config's info file; None for all frames.
        rows: failures and severities under which the model is tested.
        seed: seed of the failures, of the choice of frames and of the bootstrap.
        inference: settings of :func:`~projects.cmt_aqr.inference.fold_for_inference`; None for no
            optimised copies.
    """

    name: str
    cfg: Config
    checkpoint: str
    folder: Path
    indices: Sequence[int] | None
    rows: Sequence[Row]
    seed: int
    inference: Mapping[str, Any] | None

    @functools.cached_property
    def records(self) -> Records:
        """Results on disk."""
        return Records(self.folder)

    @functools.cached_property
    def made_of(self) -> dict[str, Any]:
        """Facts that identify the results, see :data:`.records.IDENTITY`."""
        tokens = sample_tokens(self.cfg)
        frames = tokens if self.indices is None else [tokens[index] for index in self.indices]
        settings = self.cfg.to_dict()
        return {
            'config': self.cfg.filename,
            'config_sha256': hash_of([settings['model'], settings['test_dataloader']['dataset']]),
            'checkpoint': self.checkpoint,
            'checkpoint_sha256': _hash_of_checkpoint(self.checkpoint),
            'frames': len(frames),
            'frames_sha256': hash_of(frames),
            'seed': self.seed,
            'dtype': self.inference and self.inference['dtype'],
            **code_version(),
        }

    def check_records(self) -> None:
        """Check that no result of another test would be replaced.

        Raises:
            UsageError: one would.
        """
        for name, failure in conditions_of(self.rows).items():
            changed = self.records.changed(name, {**self.made_of, 'failure': failure})
            if changed:
                raise UsageError(
                    f'{self.folder} has the result of another test ({name} differs in '
                    f'{", ".join(changed)}): choose another --work-dir, give the model another '
                    'name by --model NAME CONFIG CHECKPOINT, or replace results by --overwrite'
                )

    def run(self) -> None:
        """Test the conditions that have no record yet, and write their records."""
        conditions = conditions_of(self.rows)
        missing = {name: conditions[name] for name, record in self.read().items() if record is None}
        print_log(
            f'{self.name}: {len(missing)} of {len(conditions)} conditions to test',
            logger='current',
        )
        if not missing:
            return
        start_cpu_processes(self.cfg)
        runner = build_runner(self._test_config(missing))
        check_fit(runner, complete=True)
        if self.inference is not None:
            fold_for_inference(runner.model, **self.inference)
        runner.test()

    def _test_config(self, conditions: Mapping[str, Mapping[str, Any] | None]) -> Config:
        cfg = Config(self.cfg.to_dict(), filename=self.cfg.filename)
        cfg.load_from, cfg.resume = self.checkpoint, False
        cfg.work_dir, cfg.experiment_name = str(self.folder), f'robustness_{self.folder.name}'
        dataset = cfg.test_dataloader.dataset
        dataset.indices = self.indices
        frames_metric = dict(
            type='FramesMetric',
            data_root=dataset.data_root,
            ann_file=str(Path(dataset.data_root, dataset.ann_file)),
        )
        health = [dict(type='HealthMetric')] if cfg.model.get('health_monitor') else []
        plan = [dict(type='PlanMetric')] if cfg.model.get('planner') else []
        cfg.test_evaluator = [frames_metric, *health, *plan]
        cfg.test_cfg = dict(
            type='ConditionsLoop',
            conditions=conditions,
            folder=str(self.folder),
            made_of=self.made_of,
            fp16=cfg.test_cfg.get('fp16', False),
        )
        for hook in cfg.get('custom_hooks') or []:
            if hook['type'] == 'RoutingLogHook':
                hook.setdefault('test_interval', 1)
        return cfg

    def read(self) -> dict[str, Record | None]:
        """Record of each condition by its name; None if it has not been tested."""
        return {
            name: self.records.read(name, {**self.made_of, 'failure': failure})
            for name, failure in conditions_of(self.rows).items()
        }

    def result(self, draws: int) -> ModelResult:
        """Scores under all conditions, on all frames and on resampled ones; all must be tested.

        Args:
            draws: number of resamples of the frames.
        """
        records = self.read()
        scores = {
            name: np.array([record.scores['mAP'], record.scores['NDS']])
            for name, record in records.items()
        }
        counts = draw_frames(self.made_of['frames'], draws, self.seed)
        config = official_config(self.cfg.test_dataloader.dataset.metainfo.classes)
        resampled, progress = {}, Progress(f'{self.name}: intervals', len(records))
        for name in records:
            resampled[name] = resample(self.records.matches(name), config, counts)
            progress.move()
        progress.close()
        return ModelResult(
            name=self.name,
            records=records,
            alarms=self._alarms(config),
            kept=kept_scores(scores, self.rows),
            draws=kept_scores(resampled, self.rows),
        )

    def _alarms(self, config: DetectionConfig) -> dict[str, ScoredAlarm]:
        """Alarm under each failure and severity; empty for a model without a health monitor."""
        clean = self.records.health(CLEAN)
        if clean is None:
            return {}
        alarms = {}
        for name in conditions_of(self.rows):
            reports, matches = self.records.health(name), self.records.matches(name)
            trusted = dict(zip(reports.tokens, reports.worst >= threshold(clean), strict=True))
            counts = np.array([int(trusted[token]) for token in matches.tokens])
            nds = score(matches, config, counts).nds if counts.any() else None
            alarms[name] = ScoredAlarm(alarm(clean, reports), nds)
        return alarms


def sample_tokens(cfg: Config) -> list[str]:
    """Tokens of the test samples, in the order of the dataset.

    Raises:
        UsageError: the test dataset has no info file of its own.
    """
    dataset = cfg.test_dataloader.dataset
    if 'ann_file' not in dataset:
        raise UsageError(
            f'the test dataset of {cfg.filename} is a {dataset.type} without an ann_file of its '
            "own; robustness is tested on info files in nuScenes' format"
        )
    return [info['token'] for info in _read_infos(cfg).entries]


def version_of(cfg: Config) -> str:
    """Version of nuScenes' tables to which the test samples belong."""
    return _read_infos(cfg).metainfo['version']


def _read_infos(cfg: Config) -> Infos:
    dataset = cfg.test_dataloader.dataset
    return read_infos(Path(dataset.get('data_root') or '', dataset.ann_file))


def _hash_of_checkpoint(checkpoint: str) -> str:
    """Hash of the file, or of the URL of weights on the web."""
    return hash_of(checkpoint) if '://' in checkpoint else hash_of_file(Path(checkpoint))
