"""The shipped tiny CMT under failures: scores of one test each, with fewer branch passes."""

import argparse
import copy
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.runner import Runner, loops
from torch.utils.data import BatchSampler, SequentialSampler

from projects.cmt_aqr.cli.arguments import make_parser, read_config
from projects.cmt_aqr.datasets.failures import LidarDrop
from projects.cmt_aqr.datasets.failures.suite import protocol
from projects.cmt_aqr.evaluation.conditions import conditions_of
from projects.cmt_aqr.evaluation.conditions_loop import (
    ConditionsLoop,
    _EachUnderAll,
    with_failure,
)
from projects.cmt_aqr.evaluation.predictions import Predictions
from projects.cmt_aqr.health import HealthMetric

FRAMES = [1, 2, 4]


class Passes(Counter):
    """Number of forward passes of the backbones of a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name in ('img_backbone', 'pts_backbone'):
            part = model.get_submodule(name)
            part.register_forward_hook(lambda *_, name=name: self.update([name]))


@pytest.fixture(scope='module')
def tested(synthetic_root, repo_root, tmp_path_factory):
    """Runner of the tiny CMT on three frames in batches of two, with all conditions."""
    config = str(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    args = argparse.Namespace(**vars(make_parser('').parse_args([config])))
    args.cfg_options, args.seed = {'test_dataloader.dataset.data_root': str(synthetic_root)}, 0
    cfg = read_config(args)
    cfg.work_dir = str(tmp_path_factory.mktemp('loop'))
    cfg.load_from = str(repo_root / 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth')
    loader = cfg.test_dataloader
    loader.update(num_workers=0, batch_size=2, persistent_workers=False)
    loader.dataset.indices = FRAMES
    infos = f'{synthetic_root}/{loader.dataset.ann_file}'
    cfg.test_evaluator = dict(type='FramesMetric', data_root=str(synthetic_root), ann_file=infos)
    for hook in cfg.custom_hooks:
        if hook['type'] == 'RoutingLogHook':
            hook['test_interval'] = 1
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    runner.call_hook('before_run')
    return runner, conditions_of(protocol('all', ann_file=infos))


def run_loop(tested, folder, names, **options) -> tuple[ConditionsLoop, dict, Passes]:
    runner, conditions = tested
    passes = Passes(runner.model)
    loop = runner._test_loop = ConditionsLoop(
        runner,
        runner.cfg.test_dataloader,
        runner.cfg.test_evaluator,
        conditions={name: conditions[name] for name in names},
        folder=str(folder),
        made_of={},
        **options,
    )
    return loop, loop.run(), passes


def run_alone(tested, name: str) -> tuple[dict, Predictions]:
    """Metrics and predictions of a plain test with the failure in the config."""
    runner, conditions = tested
    loader = copy.deepcopy(runner.cfg.test_dataloader)
    if conditions[name] is not None:
        loader.dataset.pipeline.insert(0, conditions[name])
    loop = runner._test_loop = loops.TestLoop(runner, loader, runner.cfg.test_evaluator)
    metrics = loop.run()
    return metrics, loop.evaluator.metrics[0].scored.predictions


@pytest.mark.slow
def test_the_whole_suite_needs_fewer_branch_passes(tested, tmp_path, monkeypatch):
    extract = ConditionsLoop._extract_features
    monkeypatch.setattr(ConditionsLoop, 'run_iter', lambda loop, _, batch: extract(loop, batch))
    monkeypatch.setattr(ConditionsLoop, '_evaluate', lambda *_: {})
    _, conditions = tested
    loop, metrics, passes = run_loop(tested, tmp_path, conditions)
    assert list(metrics) == list(conditions)
    batches = len(loop.clean)
    assert passes['img_backbone'] + passes['pts_backbone'] < 2 * len(conditions) * batches / 1.6
    # Three passes, each with sound frames; 13 conditions of LiDAR, and 6 of both.
    assert passes['pts_backbone'] <= (3 + 13 + 6) * batches


@pytest.mark.slow  # eight evaluations
def test_predictions_and_scores_are_those_of_a_test_for_each_condition(tested, tmp_path):
    """Without the clean one, as in a resumed run; in two passes of two."""
    names = ['beam_reduction_3', 'stale_frame_3', 'fog_3', 'misalignment_3']
    _, metrics, passes = run_loop(tested, tmp_path, names, conditions_per_pass=2)
    assert passes['pts_backbone'] == (2 + 1 + 1) * 2
    for name in names:
        alone, predictions = run_alone(tested, name)
        assert 'lidar_share' in alone
        np.testing.assert_equal(metrics[name], alone)
        with np.load(tmp_path / f'{name}.predictions.npz') as found:
            for column, values in vars(predictions).items():
                np.testing.assert_array_equal(found[column], values, err_msg=f'{name} {column}')


def test_scores_of_boxes_and_plans_and_shares_of_attention_are_kept_apart(tested, tmp_path):
    loop, *_ = run_loop(tested, tmp_path, [])
    written = []
    loop.conditions = {'fog_1': None}
    health = HealthMetric()
    health.reports = 'reports'
    metrics = [SimpleNamespace(prefix='boxes', scored=None), health]
    loop.evaluator = SimpleNamespace(metrics=metrics)
    loop.records = SimpleNamespace(write=lambda *parts: written.append(parts))
    loop._write('fog_1', {'boxes/val/NDS': 0.5, 'plan/L2_to_3s': 1.5, 'lidar_share': 0.25})
    ((record, _, reports),) = written
    assert reports == 'reports'
    assert (record.scores, record.plan) == (dict(NDS=0.5), dict(L2_to_3s=1.5))
    assert record.attention == dict(lidar_share=0.25)


def test_the_failure_stands_first_and_the_samples_are_shared():
    clean = SimpleNamespace(pipeline=Compose([]), samples=[1])
    damaged = with_failure(clean, dict(type='LidarDrop'))
    (first,) = damaged.pipeline.transforms
    assert isinstance(first, LidarDrop)
    assert damaged.samples is clean.samples
    assert clean.pipeline.transforms == []
    assert with_failure(clean, None) is clean


def test_batches_keep_their_frames_under_every_condition():
    frames = BatchSampler(SequentialSampler(range(3)), batch_size=2, drop_last=False)
    batches = _EachUnderAll(frames, length=3, number=2)
    assert [*batches] == [[0, 1], [3, 4], [2], [5]]
    assert len(batches) == 4
