"""A real Runner whose second epoch reads what its first has computed."""

import itertools

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy_runner import CountMetric

from projects.cmt_aqr.feature_cache import FeatureCacheHook, use_feature_cache

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_NUMBER = itertools.count()


@pytest.fixture
def build_runner(config, tmp_path, monkeypatch):
    """Runs of a few steps that validate once at their end, settings changed by dotted name."""
    # Formatting the config takes yapf longer than all else in these runs.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))

    def build(changes: dict | None = None, hooks: tuple = (), *, cached: bool = True) -> Runner:
        cfg = Config(dict(config.to_dict()))
        cfg.merge_from_dict(
            {
                'work_dir': str(tmp_path / 'run'),
                'train_cfg.max_epochs': 2,
                'train_cfg.val_interval': 10,
                'default_hooks.logger.interval': 1,
                **{f'{name}.dataset.indices': 4 for name in LOADERS},
                'model.fast_path': None,
                'experiment_name': f'cached_{next(_NUMBER)}',
                **(changes or {}),
            }
        )
        cfg.val_evaluator = cfg.test_evaluator = dict(type=CountMetric.__name__)
        audit = dict(type='FreezeAuditHook', allow_unfilled=['*'])
        cfg.custom_hooks = [dict(type='DrawIndexHook'), audit, *hooks]
        if not cached:
            cfg.pop('feature_cache')
        use_feature_cache(cfg, {name: [cfg[name].dataset] for name in LOADERS})
        return Runner.from_cfg(cfg)

    return build


def counts(log: list[str]) -> list[str]:
    return [line for line in log if ' read and ' in line]


def test_the_second_epoch_reads_all_and_leaves_no_trace(build_runner, log, tmp_path):
    workers = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
    runner = build_runner({**workers, 'train_cfg.val_interval': 1})
    runner.train()
    assert counts(log) == [
        'feature cache: lidar 0 read and 4 computed, camera 0 read and 4 computed',
        'feature cache: lidar 0 read and 4 computed, camera 0 read and 4 computed',
        'feature cache: lidar 4 read and 0 computed, camera 4 read and 0 computed',
        'feature cache: lidar 4 read and 0 computed, camera 4 read and 0 computed',
    ]
    assert runner.model.feature_cache is None
    checkpoint = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)
    assert checkpoint['state_dict'].keys() == runner.model.state_dict().keys()
    assert not any('cache' in name for name in checkpoint['state_dict'])


def test_tests_of_models_on_the_same_backbone_share_features(build_runner, log):
    build_runner({'model.img_backbone.frozen': False}).test()
    other = build_runner()
    other.load_checkpoint = lambda *_, load=other.load_checkpoint, **__: change_neck(other, load)
    other.test()
    assert counts(log) == [
        'feature cache: lidar 0 read and 4 computed, camera 0 read and 4 computed',
        'feature cache: lidar 4 read and 0 computed, camera 4 read and 0 computed',
    ]
    assert other.model.feature_cache is None


def change_neck(runner, load) -> None:
    load(runner._load_from)
    next(runner.model.img_neck.parameters()).data += 1


def test_draws_that_repeat_are_read(build_runner, config, log):
    failure = dict(type='RandomFailure', prob=0.5, failures=[dict(type='PointsDrop')], seed=1)
    pipeline = [dict(type='DrawIndex', variants=2), failure]
    config.train_dataloader.dataset.pipeline = [
        *pipeline,
        *config.train_dataloader.dataset.pipeline,
    ]
    build_runner({'train_cfg.max_epochs': 3}).train()
    first, second, third, _ = counts(log)
    assert 'lidar 0 read and 4 computed, camera 0 read and 4 computed' in first
    assert 'camera 4 read and 0 computed' in second
    assert 'lidar 4 read' not in second
    assert 'lidar 4 read and 0 computed, camera 4 read and 0 computed' in third


def test_a_schedule_and_a_cache_exclude_each_other(build_runner):
    hook = dict(
        type='UnfreezeScheduleHook',
        module='img_backbone',
        schedule={0: dict(frozen=True), 1: dict(frozen=False)},
    )
    rate = {'optim_wrapper.paramwise_cfg.custom_keys.img_backbone': dict(lr_mult=0.1)}
    runner = build_runner({'model.img_backbone.frozen': False, **rate}, (hook,))
    with pytest.raises(ValueError, match='UnfreezeScheduleHook is to let img_backbone train, but'):
        runner.train()


def test_a_schedule_of_what_is_not_cached_is_welcome(build_runner, log):
    hook = dict(
        type='UnfreezeScheduleHook',
        module='img_neck',
        schedule={0: dict(frozen=False), 1: dict(frozen=True)},
    )
    build_runner({}, (hook,)).train()
    assert counts(log)[1].endswith('camera 4 read and 0 computed')


def test_what_begins_to_train_all_the_same_stops_the_run(build_runner):
    runner = build_runner()
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, FeatureCacheHook))
    runner.build_train_loop(runner._train_loop)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    next(runner.model.img_backbone.parameters()).requires_grad_(True)
    with pytest.raises(RuntimeError, match=r'img_backbone.* has begun to train in epoch 0, but'):
        hook.before_train_epoch(runner)


def test_losses_over_a_run_are_those_without(build_runner, log):
    runs = []
    for cached in (False, True):
        log.clear()
        build_runner({'randomness': dict(seed=1)}, cached=cached).train()
        steps = [line for line in log if line.startswith('Epoch(train)')]
        runs.append([float(line.split(' loss: ')[1].split()[0]) for line in steps])
    assert len(runs[0]) == 4
    assert runs[1] == pytest.approx(runs[0], rel=2e-3)
