"""The shipped tiny CMT under two failures on two frames, and what is not done again."""

import argparse
import dataclasses
import shutil

import numpy as np
import pytest
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from projects.cmt_aqr.cli.arguments import make_parser, read_config
from projects.cmt_aqr.datasets.failures.suite import Row
from projects.cmt_aqr.evaluation.match_scores import score
from projects.cmt_aqr.evaluation.official import official_config
from projects.cmt_aqr.evaluation.robustness_run import ModelRun, sample_tokens
from projects.cmt_aqr.health.alarm import Reports
from projects.cmt_aqr.usage_error import UsageError

pytestmark = pytest.mark.slow

ROWS = [
    Row('lidar_drop', dict(type='LidarDrop', seed=0), (1,)),
    Row('view_drop', dict(type='CameraDrop', seed=0), (1,)),
]


@pytest.fixture(scope='module')
def run(synthetic_root, repo_root, tmp_path_factory):
    """A run that is done."""
    folder = tmp_path_factory.mktemp('robustness')
    weights = folder / 'cmt.pth'
    shutil.copy(repo_root / 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth', weights)
    options = {
        'train_dataloader.dataset.data_root': 'not needed to test',
        'test_dataloader.dataset.data_root': str(synthetic_root),
        'test_dataloader.batch_size': 1,
        'test_dataloader.num_workers': 0,
    }
    config = str(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    parser = make_parser('')
    arguments = argparse.Namespace(**vars(parser.parse_args([config])))
    arguments.cfg_options, arguments.seed = options, 0
    run = ModelRun(
        name='cmt',
        cfg=read_config(arguments),
        checkpoint=str(weights),
        folder=folder / 'cmt',
        indices=[1, 4],
        rows=ROWS,
        seed=0,
        inference=dict(dtype=None),
    )
    run.run()
    return run


@pytest.fixture
def no_runner(monkeypatch):
    """Whoever builds a Runner fails."""

    def fail(cfg):
        raise AssertionError('a Runner was built')

    monkeypatch.setattr(Runner, 'from_cfg', fail)


def test_every_condition_has_scores_of_the_chosen_frames(run):
    result = run.result(draws=20)
    assert list(result.records) == ['clean', 'lidar_drop_1', 'view_drop_1']
    tokens = sample_tokens(run.cfg)
    assert [*run.records.matches('view_drop_1').tokens] == [tokens[1], tokens[4]]
    clean, dark, blind = (result.records[name].scores['NDS'] for name in result.records)
    assert clean > max(dark, blind) > 0
    assert result.kept['lidar_drop'].nds == dark
    assert result.draws['mean'].ra.shape == (20,)


def test_where_queries_look_is_recorded_of_every_condition(run):
    shares = [record.attention['lidar_share'] for record in run.read().values()]
    assert len({*shares}) == 3  # each condition has its own, of all of its batches
    assert all(0 < mass < 1 for mass in shares)


def test_a_record_says_what_it_is_made_of(run):
    made_of = run.read()['view_drop_1'].made_of
    assert made_of['failure'] == dict(type='CameraDrop', seed=0, severity=1)
    assert (made_of['frames'], made_of['seed'], made_of['checkpoint']) == (2, 0, run.checkpoint)
    assert len(made_of['checkpoint_sha256']) == len(made_of['config_sha256']) == 64
    assert made_of['config'].endswith('cmt_tiny_synthetic.py')
    assert 'commit' in made_of


def test_what_is_done_is_not_done_again(run, no_runner):
    run.check_records()
    run.run()


@pytest.mark.parametrize('change', ['seed', 'frames', 'weights', 'config', 'failure'])
def test_what_was_made_of_something_else_is_done_again(run, change, no_runner, tmp_path):
    other_weights = tmp_path / 'other.pth'
    other_weights.write_bytes(b'other')
    other_config = run.cfg.copy()
    other_config.model = ConfigDict(run.cfg.model, extra=1)
    changed = {
        'seed': dict(seed=1),
        'frames': dict(indices=[1, 3]),
        'weights': dict(checkpoint=str(other_weights)),
        'config': dict(cfg=other_config),
        'failure': dict(rows=[ROWS[0], Row('view_drop', dict(type='CameraDrop', seed=7), (1,))]),
    }
    other = dataclasses.replace(run, **changed[change])
    with pytest.raises(UsageError, match=r'cmt has the result of another test \((clean|view_drop)'):
        other.check_records()
    missing = [name for name, record in other.read().items() if record is None]
    assert missing == (['view_drop_1'] if change == 'failure' else list(run.read()))
    with pytest.raises(AssertionError, match='a Runner was built'):
        other.run()


def test_the_plans_of_a_planner_are_scored_too(run):
    cfg = run.cfg.copy()
    cfg.model = ConfigDict(run.cfg.model, planner=dict(type='ActionQueryHead'))
    planned = dataclasses.replace(run, cfg=cfg)._test_config({})
    assert [metric['type'] for metric in planned.test_evaluator] == ['FramesMetric', 'PlanMetric']


def test_a_dataset_without_an_info_file_is_refused(run):
    cfg = run.cfg.copy()
    cfg.test_dataloader = ConfigDict(dataset=dict(type='CBGSDataset', dataset=dict(ann_file='x')))
    with pytest.raises(UsageError, match='CBGSDataset without an ann_file of its own'):
        sample_tokens(cfg)


def test_frames_without_an_alarm_are_scored(run, tmp_path):
    """Those whose worst sensor is as healthy as 99 % of the sound frames."""
    matches = run.records.matches('clean')
    conditions = {'clean': [0.9, 0.8], 'lidar_drop_1': [0.85, 0.1], 'view_drop_1': [0.1, 0.2]}
    shutil.copytree(run.folder, tmp_path / 'watched')
    watched = dataclasses.replace(run, folder=tmp_path / 'watched')
    for name, lidar in conditions.items():
        ones = np.ones((2, 1))
        reports = Reports(
            tokens=matches.tokens,
            names=np.array(['CAM']),
            lidar=np.array(lidar),
            cameras=ones,
            lidar_sound=np.full(2, float(name == 'clean')),
            cameras_sound=ones,
        )
        reports.save(watched.folder / f'{name}.health.npz')
    alarms = watched.result(draws=2).alarms
    config = official_config(run.cfg.test_dataloader.dataset.metainfo.classes)
    one = score(watched.records.matches('lidar_drop_1'), config, np.array([1, 0]))
    assert alarms['lidar_drop_1'].nds == pytest.approx(one.nds)
    assert alarms['view_drop_1'].nds is None
    assert run.result(draws=2).alarms == {}
