"""A small detector with the shipped weights, its data, and a cache of its features."""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch import nn
from torch.utils.data import Dataset

from projects.cmt_aqr.feature_cache import FeatureStore, fill
from projects.cmt_aqr.feature_cache.filling import select_features
from projects.cmt_aqr.feature_cache.settings import cached_pipeline


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """Messages to any of mmengine's loggers."""
    messages: list[str] = []
    monkeypatch.setattr(
        MMLogger, 'handle', lambda logger, record: messages.append(record.getMessage())
    )
    return messages


@pytest.fixture(scope='session')
def data_root(synthetic_root, tmp_path_factory) -> Path:
    """A database whose files tests may change and restore."""
    return shutil.copytree(synthetic_root, tmp_path_factory.mktemp('cached') / 'data')


@pytest.fixture(scope='session')
def file_config(repo_root) -> Config:
    """The config file of the tiny router with a cache."""
    return Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_cached.py')


@pytest.fixture
def config(file_config, repo_root, data_root, tmp_path) -> Config:
    """Config of a run on frozen backbones without failures; its cache is in `tmp_path`."""
    cfg = copy.deepcopy(file_config)
    cfg.feature_cache.directory = str(tmp_path / 'features')
    cfg.load_from = str(repo_root / cfg.load_from)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(data_root)
        cfg[name].update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.pipeline = cfg.train_dataloader.dataset.pipeline[2:]
    return cfg


@pytest.fixture
def build_model(config) -> Callable[..., nn.Module]:
    """The detector in training mode with the shipped weights; settings are changed by dotted name.

    Without fast paths, which take time to make.
    """

    def build(changes: Mapping[str, object] | None = None) -> nn.Module:
        cfg = Config(dict(model=copy.deepcopy(config.model)))
        changes = {'fast_path': None, **(changes or {})}
        cfg.merge_from_dict({f'model.{name}': value for name, value in changes.items()})
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        load_checkpoint(model, config.load_from, map_location='cpu', logger='silent')
        return model.train()

    return build


@pytest.fixture
def build_dataset(config) -> Callable[..., Dataset]:
    """The training data with a cached or a plain pipeline."""

    def build(
        *,
        cached: bool = True,
        before: Sequence[dict] = (),
        branches: Sequence[str] = ('lidar', 'camera'),
        **changes_of_fit: object,
    ) -> Dataset:
        settings = config.train_dataloader.dataset.copy()
        pipeline = [*before, *map(dict, settings['pipeline'])]
        for step in pipeline:
            if step['type'] == 'ResizeCropFlipImage':
                step.update(changes_of_fit)
        if cached:
            directory = config.feature_cache.directory
            pipeline = cached_pipeline(
                pipeline, branches=branches, directory=directory, training=True
            )
        return DATASETS.build({**settings, 'pipeline': pipeline})

    return build


@pytest.fixture
def store(config) -> FeatureStore:
    return FeatureStore(directory=config.feature_cache.directory)


@pytest.fixture
def fill_cache(store) -> Callable[..., None]:
    """Fills a cache with a dataset and lets the dataset read it."""

    def run(model: nn.Module, dataset: Dataset, store: FeatureStore = store) -> None:
        select_features(model, dataset, store, training=True)
        fill(model, dataset, store)

    return run


@pytest.fixture
def features_of() -> Callable[..., list[torch.Tensor]]:
    """The head's input for some samples: the BEV map and the image maps."""

    def compute(model: nn.Module, dataset: Dataset, *indices: int) -> list[torch.Tensor]:
        samples = pseudo_collate([dataset[index] for index in indices])
        with torch.no_grad():
            return [*model.extract_feat(model.data_preprocessor(samples, model.training)['inputs'])]

    return compute
