"""A filled cache gives the features, losses and predictions of the plain pipeline."""

import shutil

import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import Dataset

from projects.cmt_aqr.feature_cache import FeatureStore, fill
from projects.cmt_aqr.feature_cache.filling import cached_datasets, check_filled, select_features

BACKBONES = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')
NECKS = ('img_neck', 'pts_neck')
FROZEN_NECKS = {f'{name}.frozen': True for name in NECKS}
FAILURES = [
    dict(type='DrawIndex', variants=3),
    dict(type='RandomFailure', prob=0.5, failures=[dict(type='LidarDrop')]),
]


def files_of(store: FeatureStore, branch: str = '') -> list:
    """Files of the whole store, or of its folders that begin with `branch`."""
    return [*store.directory.glob(f'{branch}*/*/*/*.safetensors')]


def learn(model: nn.Module, dataset: Dataset) -> dict[str, float]:
    """Losses of a step on two samples with fixed random numbers; leaves gradients."""
    torch.manual_seed(0)
    samples = pseudo_collate([dataset[0], dataset[1]])
    losses = model(**model.data_preprocessor(samples, True), mode='loss')
    model.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return {name: float(value) for name, value in losses.items()}


def assert_near(features: list[torch.Tensor], others: list[torch.Tensor], tolerance: float) -> None:
    """Within a share of the largest value."""
    for one, other in zip(features, others, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def forbid(model: nn.Module, monkeypatch, *names: str) -> None:
    """Makes these parts fail when they are called."""
    for name in names:
        monkeypatch.setattr(model.get_submodule(name), 'forward', lambda *_: pytest.fail('called'))


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [('float32', 1e-5), ('float16', 2e-3), ('bfloat16', 2e-2)]
)
def test_features_are_those_without_a_cache_to_its_precision(
    build_model, build_dataset, features_of, fill_cache, store, dtype, tolerance
):
    model, dataset = build_model(), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 2, 0)
    store = FeatureStore(directory=store.directory, dtype=dtype)
    fill_cache(model, dataset, store)
    assert model.training
    assert_near(features_of(model, dataset, 2, 0), plain, tolerance)
    assert len(files_of(store, 'img_backbone')) == len(files_of(store, 'pts_backbone')) == 6


def test_losses_and_gradients_are_those_without_a_cache(
    build_model, build_dataset, fill_cache, monkeypatch
):
    """Also with fast paths, which compute in another memory layout."""
    model, dataset = build_model({'fast_path': {}}), build_dataset()
    plain = learn(model, build_dataset(cached=False))
    fill_cache(model, dataset)
    forbid(model, monkeypatch, *BACKBONES)
    assert learn(model, dataset) == pytest.approx(plain, rel=2e-3)
    learnt = {name.split('.')[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learnt == {*NECKS, 'pts_bbox_head'}


def test_the_output_of_a_frozen_neck_is_cached(
    build_model, build_dataset, features_of, fill_cache, store, monkeypatch
):
    model, dataset = build_model(FROZEN_NECKS), build_dataset()
    plain = features_of(model, build_dataset(cached=False), 0)
    fill_cache(model, dataset)
    forbid(model, monkeypatch, *BACKBONES, *NECKS)
    assert_near(features_of(model, dataset, 0), plain, 2e-3)
    shapes = {}
    for path in files_of(store):
        module, digest = path.parts[-4:-2]
        (maps,) = store.read(f'{module}/{digest}', path.stem).maps
        shapes[module] = tuple(maps.shape)
    assert shapes == {'img_neck': (6, 64, 8, 24), 'pts_neck': (128, 32, 32)}


def test_predictions_are_the_same(build_model, build_dataset, fill_cache):
    """All that the head needs to know about the cameras comes from the entry."""
    model, plain, dataset = build_model().eval(), build_dataset(cached=False), build_dataset()
    fill_cache(model, dataset, FeatureStore(directory=dataset_directory(dataset), dtype='float32'))
    boxes = []
    for source in (plain, dataset):
        with torch.no_grad():
            results = model.val_step(pseudo_collate([source[0], source[1]]))
        boxes.append([r.pred_instances_3d.bboxes_3d.tensor for r in results])
    for one, other in zip(*boxes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def dataset_directory(dataset: Dataset) -> str:
    transform = dataset.pipeline.transforms[0]
    return transform.store.directory


def test_every_draw_is_filled_and_equal_inputs_once(build_model, build_dataset, store, log):
    model, dataset = build_model(), build_dataset(before=FAILURES)
    folders = select_features(model, dataset, store, training=True)
    assert sorted(f.partition('/')[0] for f in folders) == ['img_backbone', 'pts_backbone']
    fill(model, dataset, store)
    # Six whole clouds, and an empty one for all samples.
    assert len(files_of(store, 'pts_backbone')) == 7
    assert len(files_of(store, 'img_backbone')) == 6
    (line,) = (line for line in log if line.startswith('feature cache'))
    assert '7 lidar and 6 camera features to compute for 6 samples, 0.0' in line
    log.clear()
    fill(model, dataset, store)
    assert '0 lidar and 0 camera features to compute for 6 samples, 0.000 GB' in '\n'.join(log)
    draw_index = dataset.pipeline.transforms[0]
    for draw in range(6):
        draw_index.set_epoch(draw)
        assert all('pts_backbone' in dataset[i]['inputs']['features'] for i in range(6))


def test_a_failure_of_one_sensor_leaves_the_features_of_the_other(
    build_model, build_dataset, features_of, fill_cache, store
):
    failure = dict(type='BeamReduction', severity=3)
    model, damaged = build_model(), build_dataset(before=[failure])
    plain = features_of(model, build_dataset(cached=False, before=[failure]), 0)
    fill_cache(model, build_dataset())
    fill_cache(model, damaged)
    assert_near(features_of(model, damaged, 0), plain, 2e-3)
    assert len(files_of(store, 'pts_backbone')) == 12
    assert len(files_of(store, 'img_backbone')) == 6


def test_one_branch_can_be_cached_alone(
    build_model, build_dataset, features_of, fill_cache, store, monkeypatch
):
    model, dataset = build_model(), build_dataset(branches=['camera'])
    plain = features_of(model, build_dataset(cached=False), 0, 1)
    fill_cache(model, dataset)
    forbid(model, monkeypatch, 'img_backbone')
    assert_near(features_of(model, dataset, 0, 1), plain, 2e-3)
    assert files_of(store, 'pts_backbone') == []


def change_weights(model: nn.Module) -> None:
    model.img_backbone.layer1[0].bn1.running_mean += 1e-3
    model.pts_middle_encoder.conv_input[0].weight.data *= 1 + 1e-3


def change_necks(model: nn.Module) -> None:
    for name in NECKS:
        next(model.get_submodule(name).parameters()).data += 1


def change_mean(model: nn.Module) -> None:
    model.data_preprocessor.mean += 1


@pytest.mark.parametrize(
    ('change', 'found'), [(change_weights, False), (change_mean, False), (change_necks, True)]
)
def test_features_of_other_weights_are_not_read(
    build_model, build_dataset, fill_cache, store, change, found
):
    model, dataset = build_model(), build_dataset()
    fill_cache(model, dataset)
    change(model)
    select_features(model, dataset, store, training=True)
    if found:
        check_filled(dataset)
    else:
        with pytest.raises(FileNotFoundError, match=r'no .* features of these weights'):
            check_filled(dataset)


def test_features_of_another_pipeline_are_not_read(build_model, build_dataset, fill_cache, store):
    model, other = build_model(), build_dataset(bot_pct_lim=(0.1, 0.1))
    fill_cache(model, build_dataset())
    select_features(model, other, store, training=True)
    with pytest.raises(FileNotFoundError, match='has no camera features of these weights'):
        check_filled(other)


def test_points_and_images_are_not_loaded(
    build_model, build_dataset, features_of, fill_cache, data_root, tmp_path, monkeypatch
):
    model, dataset = build_model(), build_dataset()
    fill_cache(model, dataset)
    for transform in dataset.pipeline.transforms[:2]:
        for step in transform.transforms:
            monkeypatch.setattr(type(step), 'transform', lambda *_: pytest.fail('loaded'))
    features_of(model, dataset, 0)


def test_an_interrupted_fill_is_detected(build_model, build_dataset, fill_cache, store):
    """The last entry is missing then."""
    model, dataset = build_model(), build_dataset()
    fill_cache(model, dataset)
    transform = dataset.pipeline.transforms[0]
    path = store.path(transform.folder, transform.key(dataset.get_data_info(5)))
    shutil.move(path, path.with_suffix('.moved'))
    with pytest.raises(FileNotFoundError, match=r'to fill it: python tools/cache_features\.py'):
        check_filled(dataset)
    shutil.move(path.with_suffix('.moved'), path)
    check_filled(dataset)


def test_features_above_the_limit_are_not_computed(build_model, build_dataset, fill_cache, store):
    store = FeatureStore(directory=store.directory, max_gigabytes=1e-3)
    with pytest.raises(ValueError, match=r'needs 0\.00. GB .*max_gigabytes is 0\.001: raise it'):
        fill_cache(build_model(), build_dataset(), store)
    assert len(files_of(store)) == 2  # the first of each branch, which tells the size


def test_processes_share_the_work(build_model, build_dataset, store, monkeypatch):
    model, dataset = build_model(), build_dataset()
    select_features(model, dataset, store, training=True)
    counts = []
    for rank in range(4):
        monkeypatch.setattr('projects.cmt_aqr.feature_cache.filling.get_world_size', lambda: 4)
        monkeypatch.setattr('projects.cmt_aqr.feature_cache.filling.get_rank', lambda r=rank: r)
        fill(model, dataset, store)
        counts.append(len(files_of(store, 'img_backbone')))
    assert counts == [2, 4, 5, 6]
    check_filled(dataset)


def test_datasets_in_wrappers_are_found(build_dataset, config):
    dataset = DATASETS.build(dict(type='CBGSDataset', dataset=config.train_dataloader.dataset))
    assert [*cached_datasets([dataset])] == []
    dataset.dataset = build_dataset()
    assert [*cached_datasets([dataset])] == [dataset.dataset]


@pytest.mark.parametrize('changes', [{}, FROZEN_NECKS], ids=['backbones', 'necks too'])
def test_a_health_monitor_reads_its_statistics_with_the_features(
    build_model, build_dataset, features_of, fill_cache, store, changes
):
    store = FeatureStore(directory=store.directory, dtype='float32')
    plain = build_model(changes)
    plain_dataset = build_dataset()
    fill_cache(plain, plain_dataset, store)
    model = build_model({**changes, 'health_monitor': dict(type='HealthMonitor')})
    dataset = build_dataset()
    fill_cache(model, dataset, store)
    assert len({*files_of(store)}) == 24  # other entries than without a monitor
    assert_near(features_of(model, dataset, 2, 0), features_of(plain, plain_dataset, 2, 0), 1e-6)

    logits = []
    for data in (dataset, build_dataset(cached=False)):
        batch = model.data_preprocessor(pseudo_collate([data[2], data[0]]), False)
        inputs, samples = batch['inputs'], batch['data_samples']
        with torch.no_grad():
            logits.append(model.eval()._health(model.extract_feat(inputs), inputs, samples)[0])
    assert_near(logits[0], logits[1], 1e-4)
