"""Runs that train on cached features, and tests that fill the cache."""

import itertools
from collections.abc import Callable

import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.runner import Runner
from toy_runner import CountMetric

from projects.cmt_aqr.cli.config_changes import add_failure
from projects.cmt_aqr.feature_cache import use_feature_cache
from projects.cmt_aqr.feature_cache.frozen_features import compute_output

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_NUMBER = itertools.count()


@pytest.fixture
def build_runner(config, tmp_path, monkeypatch):
    """Runners for a few steps; settings are changed by dotted name."""
    # yapf takes longer to format the config than these runs.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}'))

    def build(
        changes: dict | None = None,
        hooks: tuple = (),
        *,
        cached: bool = True,
        edit: Callable[[Config], None] = lambda cfg: None,
    ) -> Runner:
        cfg = Config(config.to_dict(), filename=config.filename)
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
        edit(cfg)
        return Runner.from_cfg(cfg)

    return build


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Modules whose output was computed for the cache, once for each sample."""
    names = []

    def compute(model, module, inputs):
        names.append(module)
        return compute_output(model, module, inputs)

    monkeypatch.setattr('projects.cmt_aqr.feature_cache.filling.compute_output', compute)
    return names


@pytest.fixture
def fill_for_training(build_runner, fill_cache):
    """Fills the cache with the training and validation data of a runner's config."""

    def run() -> None:
        runner = build_runner()
        runner._init_model_weights()
        runner.load_or_resume()
        for config in (runner._train_dataloader.dataset, runner._val_dataloader.dataset):
            fill_cache(runner.model, DATASETS.build(config))

    return run


def test_training_reads_all_features_and_leaves_no_trace(
    build_runner, fill_for_training, monkeypatch, tmp_path
):
    fill_for_training()
    workers = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
    runner = build_runner({**workers, 'train_cfg.val_interval': 1})
    for name in ('img_backbone', 'pts_backbone'):
        part = runner.model.get_submodule(name)
        monkeypatch.setattr(part, 'forward', lambda *_: pytest.fail('computed'))
    runner.train()
    checkpoint = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)
    assert checkpoint['state_dict'].keys() == runner.model.state_dict().keys()


def test_training_without_a_validation_needs_no_features_of_its_data(build_runner, fill_cache):
    runner = build_runner()
    runner._init_model_weights()
    runner.load_or_resume()
    fill_cache(runner.model, DATASETS.build(runner._train_dataloader.dataset))
    runner = build_runner({'train_cfg.val_begin': 3})
    runner.train()
    assert runner.iter == runner.max_iters > 0


def test_training_without_features_names_the_command(build_runner, config):
    with pytest.raises(FileNotFoundError) as error:
        build_runner().train()
    assert str(error.value).endswith(
        f'to fill it: python tools/cache_features.py {config.filename} {config.load_from} '
        f'--cfg-options feature_cache.directory={config.feature_cache.directory} '
        'feature_cache.max_gigabytes=10'
    )


def test_tests_compute_what_is_missing_and_share_it(build_runner, computed):
    """The second model has other necks on the same backbones."""
    build_runner({'model.img_backbone.frozen': False}).test()
    assert sorted(set(computed)) == ['img_backbone', 'pts_backbone']
    computed.clear()
    other = build_runner()
    other.load_checkpoint = lambda *_, load=other.load_checkpoint, **__: change_neck(other, load)
    other.test()
    other.val()  # the same frames as the test
    assert computed == []


def change_neck(runner: Runner, load) -> None:
    load(runner._load_from)
    next(runner.model.img_neck.parameters()).data += 1


def test_a_failure_is_filled_by_the_test_itself(build_runner, computed):
    build_runner().test()
    computed.clear()
    failure = dict(type='BeamReduction', severity=3)
    runner = build_runner(edit=lambda cfg: add_failure(cfg, failure))
    runner.test()
    assert computed == ['pts_backbone'] * 5  # four samples; the first also tells the size


def test_a_schedule_and_a_cache_exclude_each_other(build_runner):
    hook = dict(
        type='UnfreezeScheduleHook',
        module='img_backbone',
        schedule={0: dict(frozen=True), 1: dict(frozen=False)},
    )
    rate = {'optim_wrapper.paramwise_cfg.custom_keys.img_backbone': dict(lr_mult=0.1)}
    runner = build_runner({'model.img_backbone.frozen': False, **rate}, (hook,))
    with pytest.raises(ValueError, match='UnfreezeScheduleHook changes whether img_backbone trai'):
        runner.train()


def test_a_schedule_after_the_cached_module_is_allowed(build_runner, fill_for_training):
    hook = dict(
        type='UnfreezeScheduleHook',
        module='img_neck',
        schedule={0: dict(frozen=False), 1: dict(frozen=True)},
    )
    fill_for_training()
    build_runner({}, (hook,)).train()


def test_a_loop_by_iterations_is_refused(build_runner):
    """Its workers start before the weights are known."""
    loop = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    with pytest.raises(ValueError, match='IterBasedTrainLoop: set train_cfg='):
        build_runner({'train_cfg': loop}).train()
