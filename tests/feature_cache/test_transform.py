"""The part of a pipeline that looks features up."""

import pickle

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from projects.cmt_aqr.feature_cache import CachedFeatures, FeatureStore
from projects.cmt_aqr.feature_cache.store import Entry

FOLDER = 'camera-' + 'a' * 32


@TRANSFORMS.register_module()
class LoadNumbers(BaseTransform):
    """Loads an image without a file; counts."""

    loaded = 0

    def transform(self, results: dict) -> dict | None:
        LoadNumbers.loaded += 1
        if results.get('broken'):
            return None
        return {
            **results,
            'img': [np.ones((2, 2, 3))],
            'lidar2img': np.eye(4)[None],
            'shape': (2, 2),
        }


def sample(**changes: object) -> dict:
    return dict(token='t', images={}, **changes)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(directory=tmp_path)


@pytest.fixture
def transform(tmp_path) -> CachedFeatures:
    return CachedFeatures(
        branch='camera', transforms=[dict(type='LoadNumbers')], directory=tmp_path
    )


def keep(store: FeatureStore, transform: CachedFeatures) -> None:
    """Do what the model does with a sample that was loaded."""
    lookup = transform(sample())['cached_features']['camera']
    store.write(FOLDER, lookup.key, Entry([torch.ones(1, 2)], lookup.facts))


def test_without_a_folder_the_sample_is_loaded(transform):
    results = transform(sample())
    lookup = results['cached_features']['camera']
    assert not lookup.hit
    assert lookup.key == transform.key(sample())
    assert lookup.facts.keys() == {'lidar2img', 'shape', 'file_sizes'}
    assert results['img'][0].shape == (2, 2, 3)


def test_a_hit_loads_nothing_and_gives_all_that_came_with_loading(transform, store):
    keep(store, transform)
    transform.use(FOLDER)
    before = LoadNumbers.loaded
    results = transform(sample())
    assert LoadNumbers.loaded == before
    assert results['cached_features']['camera'].hit
    assert results['img'][0].size == 0
    assert np.array_equal(results['lidar2img'], np.eye(4)[None])
    assert results['shape'] == (2, 2)
    assert 'file_sizes' not in results
    transform.use(None)
    assert not transform(sample())['cached_features']['camera'].hit


def test_another_folder_is_no_hit(transform, store):
    keep(store, transform)
    transform.use('camera-' + 'b' * 32)
    assert not transform(sample())['cached_features']['camera'].hit


def test_a_second_branch_adds_to_the_first(transform):
    results = transform(sample(cached_features={'lidar': 'found'}))
    assert results['cached_features'].keys() == {'lidar', 'camera'}


def test_a_sample_that_loading_gives_up_is_given_up(transform):
    assert transform(sample(broken=True)) is None


class Samples(Dataset):
    def __init__(self, transform: CachedFeatures) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> bool:
        return self.transform(sample())['cached_features']['camera'].hit


def test_workers_that_have_started_are_told_of_the_folder(transform, store):
    keep(store, transform)
    loader = DataLoader(Samples(transform), num_workers=2, persistent_workers=True)
    assert [bool(hit) for hit in loader] == [False] * 4
    transform.use(FOLDER)
    assert [bool(hit) for hit in loader] == [True] * 4


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (dict(training=True), dict(training=False)),
        ({}, dict(transforms=[dict(type='LoadNumbers'), dict(type='LoadNumbers')])),
    ],
)
def test_options_that_decide_the_input_are_in_the_key(tmp_path, one, other):
    common = dict(branch='camera', transforms=[dict(type='LoadNumbers')], directory=tmp_path)
    keys = {CachedFeatures(**{**common, **options}).key(sample()) for options in (one, other)}
    assert len(keys) == 2


def test_the_order_of_options_in_a_config_does_not_matter(tmp_path):
    steps = [
        dict(type='ResizeCropFlipImage', final_dim=(2, 2), training=False),
        dict(training=False, final_dim=[2, 2], type='ResizeCropFlipImage'),
    ]
    keys = {
        CachedFeatures(branch='camera', transforms=[step], directory=tmp_path).key(sample())
        for step in steps
    }
    assert len(keys) == 1


def test_an_unknown_branch_is_named(tmp_path):
    with pytest.raises(ValueError, match="'radar' is none of"):
        CachedFeatures(branch='radar', transforms=[], directory=tmp_path)


def test_a_lookup_can_go_to_another_process(transform):
    lookup = transform(sample())['cached_features']['camera']
    assert pickle.loads(pickle.dumps(lookup)).key == lookup.key
