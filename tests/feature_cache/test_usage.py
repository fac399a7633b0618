"""A detector and its data with a cache: the same losses, from less work."""

import shutil

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import Dataset

from projects.cmt_aqr.feature_cache import FeatureStore, usage

RECIPE_D = {'img_neck.frozen': True, 'pts_neck.frozen': True}
BACKBONES = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')
NECKS = ('img_neck', 'pts_neck')


@pytest.fixture
def store(config) -> FeatureStore:
    return FeatureStore(directory=config.feature_cache.directory)


def files_of(store: FeatureStore) -> set:
    return {path for path in store.directory.rglob('*') if path.is_file()}


def read_and_computed(model) -> tuple[int, int]:
    """Samples of the camera branch since the last time; those of the LiDAR must be as many."""
    counts = dict(model.feature_cache.counts)
    model.feature_cache.counts.clear()
    numbers = [
        tuple(counts.get((branch, what), 0) for what in ('read', 'computed'))
        for branch in ('camera', 'lidar')
    ]
    assert numbers[0] == numbers[1]
    return numbers[0]


def learn(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Losses of a step on two samples, its random numbers always the same; leaves gradients."""
    torch.manual_seed(0)
    samples = pseudo_collate([dataset[0], dataset[1]])
    losses = model(**model.data_preprocessor(samples, True), mode='loss')
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return {name: float(value) for name, value in losses.items()}


def assert_equal(features: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    for pair in zip(features, others, strict=True):
        assert torch.equal(*pair)


def assert_near(features: list[torch.Tensor], others: list[torch.Tensor], tolerance: float) -> None:
    """Within a share of the largest value."""
    for one, other in zip(features, others, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def forbid(model, monkeypatch, *names: str) -> None:
    """Let these parts fail when they are asked to compute."""

    def fail(*_: object) -> None:
        raise AssertionError('computed again')

    for name in names:
        monkeypatch.setattr(model.get_submodule(name), 'forward', fail)


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [('float32', 1e-6), ('float16', 2e-3), ('bfloat16', 2e-2)]
)
def test_losses_are_those_without_a_cache_to_its_precision(
    config, build_model, build_dataset, features_of, dtype, tolerance
):
    model, dataset = build_model(), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 0, 1)
    store = FeatureStore(directory=config.feature_cache.directory, dtype=dtype)
    usage.begin(model, store, [dataset])
    computed = features_of(model, dataset, 0, 1)
    assert read_and_computed(model) == (0, 2)
    read = features_of(model, dataset, 0, 1)
    assert read_and_computed(model) == (2, 0)
    assert_equal(read, computed)
    assert_near(read, plain, tolerance)
    assert len(files_of(store)) == 4


def test_losses_and_gradients_are_those_without_a_cache(
    build_model, build_dataset, store, monkeypatch
):
    """With the copies for speed, which compute in a layout of their own."""
    model, dataset = build_model({'fast_path': {}}), build_dataset()
    plain = learn(model, build_dataset(cached=False))
    usage.begin(model, store, [dataset])
    computed = learn(model, dataset)
    forbid(model, monkeypatch, *BACKBONES)
    read = learn(model, dataset)
    assert read == computed
    assert read == pytest.approx(plain, rel=2e-3)
    learnt = {name.split('.')[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {*NECKS, 'pts_bbox_head'}


def test_a_neck_that_is_frozen_too_is_cached(
    build_model, build_dataset, features_of, store, monkeypatch
):
    model, dataset = build_model(RECIPE_D), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 0)
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    forbid(model, monkeypatch, *BACKBONES, *NECKS)
    assert_near(features_of(model, dataset, 0), plain, 2e-3)
    maps = {path.parts[-3].split('-')[0]: path for path in files_of(store)}
    shapes = {
        branch: [tuple(m.shape) for m in store.read(path.parts[-3], path.stem).maps]
        for branch, path in maps.items()
    }
    assert shapes == {'camera': [(6, 64, 8, 24)], 'lidar': [(128, 32, 32)]}


def test_batches_of_which_some_are_cached(build_model, build_dataset, features_of, store):
    model, dataset = build_model(), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 2, 0, 1)
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    read_and_computed(model)
    assert_near(features_of(model, dataset, 2, 0, 1), plain, 2e-3)
    assert read_and_computed(model) == (1, 2)


def test_one_sensor_cached_and_the_other_damaged(build_model, build_dataset, features_of, store):
    failure = dict(type='BeamReduction', severity=3)
    model, dataset = build_model(), build_dataset(before=[failure])
    plain = features_of(model, build_dataset(cached=False, before=[failure]), 0)
    clean = build_dataset()
    usage.begin(model, store, [dataset, clean])
    features_of(model, clean, 0)
    model.feature_cache.counts.clear()
    assert_near(features_of(model, dataset, 0), plain, 2e-3)
    assert model.feature_cache.counts['camera', 'read'] == 1
    assert model.feature_cache.counts['lidar', 'computed'] == 1
    assert_near(features_of(model, dataset, 0), plain, 2e-3)
    assert model.feature_cache.counts['lidar', 'read'] == 1


def test_on_a_hit_no_file_of_the_data_is_needed(
    build_model, build_dataset, features_of, store, data_root, tmp_path
):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    before = features_of(model, dataset, 0)
    folders = ('samples', 'sweeps')
    for folder in folders:
        shutil.move(data_root / folder, tmp_path / folder)
    try:
        assert_equal(features_of(model, dataset, 0), before)
        with pytest.raises(FileNotFoundError):
            features_of(model, dataset, 1)
    finally:
        for folder in folders:
            shutil.move(tmp_path / folder, data_root / folder)


def test_other_weights_find_nothing(build_model, build_dataset, features_of, store):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    usage.end(model, [dataset])
    model.img_backbone.layer1[0].bn1.running_mean += 1e-3
    model.pts_middle_encoder.conv_input[0].weight.data *= 1 + 1e-3
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    assert read_and_computed(model) == (0, 1)
    assert len(files_of(store)) == 4


def test_weights_of_what_trains_do_not_count(build_model, build_dataset, features_of, store):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    usage.end(model, [dataset])
    for name in NECKS:
        next(model.get_submodule(name).parameters()).data += 1
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    assert read_and_computed(model) == (1, 0)


def test_another_preprocessing_finds_nothing(build_model, build_dataset, features_of, store):
    dataset = build_dataset()
    for model in (build_model(), build_model({'data_preprocessor.mean': [100.0, 100.0, 100.0]})):
        usage.begin(model, store, [dataset])
        features_of(model, dataset, 0)
        assert read_and_computed(model) == (0, 1)


def test_another_pipeline_finds_nothing(build_model, build_dataset, features_of, store):
    model = build_model()
    for dataset in (build_dataset(), build_dataset(bot_pct_lim=(0.1, 0.1))):
        usage.begin(model, store, [dataset])
        features_of(model, dataset, 0)
        assert model.feature_cache.counts['camera', 'computed'] == 1


def test_files_of_another_size_find_nothing(
    build_model, build_dataset, features_of, store, data_root
):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    read_and_computed(model)
    info = dataset.get_data_info(0)
    changed = [info['lidar_points']['lidar_path'], info['images']['CAM_FRONT']['img_path']]
    content = {}
    for path in changed:
        with open(path, 'rb') as file:
            content[path] = file.read()
    try:
        for path in changed:
            with open(path, 'ab') as file:
                file.write(bytes(20))
        features_of(model, dataset, 0)
        assert read_and_computed(model) == (0, 1)
        features_of(model, dataset, 0)
        assert read_and_computed(model) == (1, 0)
    finally:
        for path in changed:
            with open(path, 'wb') as file:
                file.write(content[path])


def test_a_damaged_entry_is_computed_and_written_again(
    build_model, build_dataset, features_of, store, log
):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    before = features_of(model, dataset, 0)
    for path in files_of(store):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    read_and_computed(model)
    assert_equal(features_of(model, dataset, 0), before)
    assert read_and_computed(model) == (0, 1)
    assert sum('is damaged and will be made anew' in line for line in log) == 2
    assert_equal(features_of(model, dataset, 0), before)
    assert read_and_computed(model) == (1, 0)


def test_an_entry_deleted_between_lookup_and_use_is_an_error(
    build_model, build_dataset, features_of, store
):
    model, dataset = build_model(), build_dataset()
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    found = pseudo_collate([dataset[0]])
    for path in files_of(store):
        path.unlink()
    with pytest.raises(FileNotFoundError, match='was deleted while a run was using it'):
        model.extract_feat(model.data_preprocessor(found, True)['inputs'])


def test_a_full_cache_changes_nothing_but_time(build_model, build_dataset, features_of, config):
    model, dataset = build_model(), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 0)
    store = FeatureStore(directory=config.feature_cache.directory, max_gigabytes=1e-6)
    usage.begin(model, store, [dataset])
    for _ in range(2):
        assert_near(features_of(model, dataset, 0), plain, 2e-3)
    assert read_and_computed(model) == (0, 2)
    assert files_of(store) == set()


def test_after_the_end_all_is_as_before(build_model, build_dataset, features_of, store):
    model, dataset = build_model(), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 0)
    usage.begin(model, store, [dataset])
    features_of(model, dataset, 0)
    usage.end(model, [dataset])
    assert model.feature_cache is None
    assert_equal(features_of(model, dataset, 0), plain)


def test_the_state_dict_and_a_copy_know_nothing_of_it(build_model, build_dataset, store):
    model, dataset = build_model(), build_dataset()
    names = [*model.state_dict()], [name for name, _ in model.named_modules()]
    usage.begin(model, store, [dataset])
    assert ([*model.state_dict()], [name for name, _ in model.named_modules()]) == names


def test_the_same_predictions(build_model, build_dataset, store):
    """And all facts that the head needs of the cameras come from the entry."""
    model, dataset = build_model().eval(), build_dataset()
    usage.begin(model, store, [dataset])
    outputs = []
    for _ in range(2):
        samples = pseudo_collate([dataset[0], dataset[1]])
        with torch.no_grad():
            results = model.val_step(samples)
        outputs.append([r.pred_instances_3d.bboxes_3d.tensor for r in results])
    assert read_and_computed(model) == (2, 2)
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))
