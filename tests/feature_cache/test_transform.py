"""The transforms that read features and pack them."""

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from projects.cmt_aqr.feature_cache import FeatureStore, LoadCachedFeatures, PackWithFeatures
from projects.cmt_aqr.feature_cache.store import Entry

FOLDER = 'img_backbone/' + 'a' * 32


@TRANSFORMS.register_module()
class LoadNumbers(BaseTransform):
    """Makes an image without a file."""

    def transform(self, results: dict) -> dict:
        added = {'img': [np.ones((2, 2, 3))], 'lidar2img': np.eye(4)[None], 'shape': (2, 2)}
        return {**results, **added}


def sample(**changes: object) -> dict:
    return dict(token='t', images={}, **changes)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(directory=tmp_path)


def transform_of(directory, **changes: object) -> LoadCachedFeatures:
    options = dict(branch='camera', transforms=[dict(type='LoadNumbers')], directory=directory)
    return LoadCachedFeatures(**{**options, **changes})


@pytest.fixture
def transform(tmp_path) -> LoadCachedFeatures:
    return transform_of(tmp_path, fill_command='python fill.py CONFIG')


def write(store: FeatureStore, transform: LoadCachedFeatures) -> None:
    _, facts = transform.load(sample())
    store.write(FOLDER, transform.key(sample()), Entry([torch.ones(1, 2)], facts))


def test_features_and_facts_take_the_place_of_images(transform, store):
    write(store, transform)
    transform.folder = FOLDER
    results = transform(sample(features={'pts_neck': []}))
    assert results['features'].keys() == {'pts_neck', 'img_backbone'}
    assert torch.equal(results['features']['img_backbone'][0], torch.ones(1, 2).half())
    assert np.array_equal(results['lidar2img'], np.eye(4)[None])
    assert results['shape'] == (2, 2)
    assert 'img' not in results


def test_a_missing_entry_names_sample_and_command(transform, store):
    write(store, transform)
    transform.folder = FOLDER.replace('a', 'b')
    with pytest.raises(FileNotFoundError) as error:
        transform(sample())
    assert str(error.value) == (
        f'{store.directory} has no camera features of these weights for sample t; '
        'to fill it: python fill.py CONFIG'
    )


def test_without_the_hook_it_is_an_error(transform):
    with pytest.raises(RuntimeError, match='set feature_cache in the config'):
        transform(sample())


class Samples(Dataset):
    def __init__(self, transform: LoadCachedFeatures) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> str:
        return self.transform.folder


def test_running_workers_read_from_the_folder_that_was_set_last(transform):
    transform.folder = FOLDER
    loader = DataLoader(Samples(transform), num_workers=2, persistent_workers=True, batch_size=None)
    assert [*loader] == [FOLDER] * 4
    transform.folder = 'img_neck/b'
    assert [*loader] == ['img_neck/b'] * 4


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (dict(training=True), dict(training=False)),
        ({}, dict(transforms=[dict(type='LoadNumbers'), dict(type='LoadNumbers')])),
    ],
)
def test_options_that_determine_the_input_are_in_the_key(tmp_path, one, other):
    keys = {transform_of(tmp_path, **options).key(sample()) for options in (one, other)}
    assert len(keys) == 2


def test_the_order_of_options_in_a_config_does_not_matter(tmp_path):
    steps = [
        dict(type='ResizeCropFlipImage', final_dim=(2, 2), training=False),
        dict(training=False, final_dim=[2, 2], type='ResizeCropFlipImage'),
    ]
    keys = {transform_of(tmp_path, transforms=[step]).key(sample()) for step in steps}
    assert len(keys) == 1


def test_an_unknown_branch_is_named(tmp_path):
    with pytest.raises(ValueError, match="'radar' is not one of"):
        transform_of(tmp_path, branch='radar')


def test_features_are_packed_as_inputs():
    pack = PackWithFeatures(packing=dict(type='Pack3DDetInputs', keys=['img'], meta_keys=['token']))
    features = {'img_neck': [torch.ones(1)]}
    packed = pack(sample(features=features))
    assert packed['inputs'] == {'features': features}
    assert packed['data_samples'].token == 't'
