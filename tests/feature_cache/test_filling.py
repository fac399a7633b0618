"""Filling a cache ahead: what it will take is known before, and what is there is left alone."""

import pytest
from mmdet3d.registry import DATASETS
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from projects.cmt_aqr.feature_cache import FeatureStore, usage
from projects.cmt_aqr.feature_cache.filling import fill, loader_config

FAILURES = [
    dict(type='DrawIndex', variants=3),
    dict(type='RandomFailure', prob=0.5, failures=[dict(type='LidarDrop')]),
]


@pytest.fixture
def store(config) -> FeatureStore:
    return FeatureStore(directory=config.feature_cache.directory)


def loader_of(dataset) -> DataLoader:
    return DataLoader(dataset, batch_size=4, collate_fn=pseudo_collate)


def run(model, dataset, store) -> tuple[dict[str, int], dict[str, int]]:
    """Entries wanted and missing, by branch."""
    plan = fill(model, loader_of(dataset), store, training=True, name='train_dataloader')
    return tuple(
        {branch: len(keys) for branch, keys in found.items()}
        for found in (plan.wanted, plan.missing)
    )


def entries(store: FeatureStore) -> int:
    return sum(path.is_file() for path in store.directory.rglob('*'))


def test_all_draws_are_kept_and_equal_ones_once(build_model, build_dataset, store, log):
    dataset = build_dataset(before=FAILURES)
    wanted, missing = run(build_model(), dataset, store)
    # Six samples whole, and one cloud without points for all of them.
    assert wanted == {'lidar': 7, 'camera': 6}
    assert sum(missing.values()) < 13
    assert entries(store) == 13
    (line,) = (line for line in log if 'entries to compute' in line)
    assert line.startswith('feature cache, train_dataloader: lidar ')
    assert store.size() / 13 == pytest.approx(
        float(line.split()[-2]) * 1e9 / sum(missing.values()), rel=0.3
    )
    assert run(build_model(), dataset, store) == (wanted, {'lidar': 0, 'camera': 0})


def test_afterwards_all_is_a_hit_and_the_model_as_it_was(
    build_model, build_dataset, features_of, store
):
    model, dataset = build_model(), build_dataset()
    run(model, dataset, store)
    assert model.feature_cache is None
    usage.begin(model, store, [dataset])
    features_of(model, dataset, *range(len(dataset)))
    assert model.feature_cache.counts['camera', 'read'] == len(dataset)


def test_what_does_not_fit_is_refused_before_it_is_computed(build_model, build_dataset, config):
    store = FeatureStore(directory=config.feature_cache.directory, max_gigabytes=1e-3)
    with pytest.raises(ValueError, match=r'entries to compute, .* room for 0\.00.*: raise that'):
        run(build_model(), build_dataset(), store)
    assert entries(store) == 2  # of the sample that told the size


def test_nothing_frozen_is_an_error(build_model, build_dataset, store):
    trained = ('img_backbone', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone')
    model = build_model({f'{name}.frozen': False for name in trained})
    with pytest.raises(ValueError, match='train_dataloader: no branch of the model is frozen'):
        run(model, build_dataset(), store)


def test_the_loader_takes_batches_and_workers_over_and_no_order(config):
    config.train_dataloader.update(num_workers=3, persistent_workers=True)
    settings = loader_config(config, 'train_dataloader', config.train_dataloader.dataset)
    assert settings['sampler'] == dict(type='DefaultSampler', shuffle=False)
    assert (settings['num_workers'], settings['batch_size']) == (3, 2)
    assert not settings['drop_last']
    assert config.train_dataloader.persistent_workers


def test_pipelines_of_wrapped_datasets_are_found(config):
    dataset = DATASETS.build(dict(type='CBGSDataset', dataset=config.train_dataloader.dataset))
    assert [*usage.pipeline_steps(dataset)] == dataset.dataset.pipeline.transforms
